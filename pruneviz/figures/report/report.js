// Draws the report from the data embedded in it. The grid's drawing, drawGrid, comes before this in one module.

const sent = JSON.parse(document.getElementById("data").textContent)
const dark = matchMedia("(prefers-color-scheme: dark)")
const style = () => getComputedStyle(document.documentElement)
const text = () => style().getPropertyValue("--st-text-color").trim()
const WHITE = { paper: "#ffffff", text: "#0b121d" } // what is exported is read on white

// The moving grid is a component of the dashboard's framework, which lends it an element, data, and an ear.
if (sent.grid) {
  const parentElement = document.getElementById("grid").attachShadow({ mode: "open" })
  parentElement.innerHTML = `<style>${sent.grid.css}</style>${sent.grid.html}`
  drawGrid({ parentElement, data: sent.grid.data, setStateValue() {} })
}

// Charts are drawn when they come near: drawing takes longer than all the rest of the page.
const charts = [...document.querySelectorAll(".chart")]
const drawn = new Set()

function draw(div, colour = text()) {
  if (drawn.has(div)) return
  drawn.add(div)
  const { data, layout } = sent.figures[div.dataset.figure].chart
  const font = { color: colour, family: style().getPropertyValue("--st-font") }
  const filename = div.dataset.figure
  const save = (format) => ({
    name: `Download as ${format.toUpperCase()}`,
    icon: Plotly.Icons.camera,
    click: (gd) => exported(gd, { format, filename }),
  })
  Plotly.newPlot(div, data, { ...layout, font, autosize: true }, {
    responsive: true,
    displaylogo: false,
    showSendToCloud: false,
    modeBarButtonsToRemove: ["toImage", "lasso2d", "select2d", "autoScale2d"],
    modeBarButtonsToAdd: [save("png"), save("svg")],
  })
}

function exported(gd, { format, filename }) {
  const { width, height } = gd._fullLayout
  const layout = { ...gd.layout, paper_bgcolor: WHITE.paper, font: { ...gd.layout.font, color: WHITE.text } }
  return Plotly.downloadImage({ data: gd.data, layout }, { format, filename, width, height, scale: format === "png" ? 2 : 1 })
}

function recolour(colour) {
  for (const div of drawn) Plotly.relayout(div, { "font.color": colour })
}

const near = new IntersectionObserver((found) => {
  for (const { isIntersecting, target } of found) if (isIntersecting) draw(target)
}, { rootMargin: "600px" })
charts.forEach((div) => near.observe(div))
dark.addEventListener("change", () => recolour(text()))
addEventListener("beforeprint", () => {
  charts.forEach((div) => draw(div))
  recolour(WHITE.text)
})
addEventListener("afterprint", () => recolour(text()))

// Tables: a link to the numbers, and as many of them to look at as a page can bear.
const MOST = 500

function cells(csv) {
  const rows = [[]]
  for (const [, quoted, plain, end] of csv.matchAll(/(?:"((?:[^"]|"")*)"|([^",\n]*))(,|\n|$)/g)) {
    rows.at(-1).push(quoted == null ? plain : quoted.replaceAll('""', '"'))
    if (end === "\n") rows.push([])
    if (end === "") break
  }
  return rows.filter((row) => row.length > 1 || row[0])
}

function rounded(value) {
  const plain = value !== "" && Number.isFinite(+value) && /[.e]/.test(value)
  return plain ? String(+(+value).toPrecision(5)) : value
}

function tabled(csv, place) {
  const [names, ...rows] = cells(csv)
  const order = names.map((_, i) => i).sort((a, b) => (names[a] === "run") - (names[b] === "run")) // ids are long: last
  const table = document.createElement("table")
  const line = (into, tag, values) => {
    const row = into.insertRow()
    for (const value of values) {
      const cell = row.appendChild(document.createElement(tag))
      cell.textContent = value
      if (tag === "th") cell.scope = "col"
    }
  }
  line(table.createTHead(), "th", order.map((i) => names[i]))
  const body = table.createTBody()
  for (const row of rows.slice(0, MOST)) line(body, "td", order.map((i) => rounded(row[i])))
  place.replaceChildren(table)
  return rows.length
}

async function unpacked(packed) {
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0))
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text()
}

for (const details of document.querySelectorAll("details.data")) {
  details.addEventListener("toggle", async () => {
    const link = details.querySelector(".csv")
    if (!details.open || link.href) return
    const csv = await unpacked(sent.figures[details.dataset.figure].csv)
    link.href = URL.createObjectURL(new Blob([csv], { type: "text/csv" }))
    const count = tabled(csv, details.querySelector(".rows"))
    if (count > MOST) details.querySelector(".more").textContent = `The first ${MOST} rows are shown here; the file has all.`
  })
}
