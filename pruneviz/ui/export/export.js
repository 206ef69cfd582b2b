// The chart's own camera button saves it, with colours and a size for a document put in its way for as long as it looks.

const PAPER = "#ffffff"
const INK = "#0b121d"
const FAMILY = "Arial, Helvetica, sans-serif" // measured here, and there wherever the file is opened

// Every text in the ink's colour and a font that is everywhere, not the theme's.
function inked(value, key = "") {
  if (Array.isArray(value) || ArrayBuffer.isView(value) || value === null || typeof value !== "object") return value
  const copy = Object.fromEntries(Object.entries(value).map(([name, each]) => [name, inked(each, name)]))
  if (!/font$/i.test(key)) return copy
  return { ...copy, ...("color" in copy && { color: INK }), ...("family" in copy && { family: FAMILY }) }
}

function save(format, { chart, name, least }) {
  const gd = document.querySelector(`.st-key-${CSS.escape(chart)} .js-plotly-plot`)
  const camera = gd?.querySelector('.modebar-btn[data-title^="Download"]')
  if (!camera) return
  const { layout } = gd
  const { toImageButtonOptions } = gd._context
  const width = Math.max(least, 900)
  const scale = format === "png" ? 2 : 1
  gd._context.toImageButtonOptions = { format, filename: name, width, height: gd._fullLayout.height, scale }
  gd.layout = { ...inked(layout), paper_bgcolor: PAPER, plot_bgcolor: PAPER, font: { ...layout.font, color: INK, family: FAMILY } }
  try {
    camera.click() // what it draws from is copied before this returns
  } finally {
    gd.layout = layout
    gd._context.toImageButtonOptions = toImageButtonOptions
  }
}

export default function ({ parentElement, data }) {
  for (const button of parentElement.querySelectorAll("button")) {
    button.onclick = () => save(button.dataset.format, data)
  }
}
