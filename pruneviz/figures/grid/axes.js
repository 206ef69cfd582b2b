// Numbers in words, ticks and a panel's axes as SVG markup. The files of this folder are one module, in the order of FILES.

const esc = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`)
const edge = (bins, i) => bins.range[0] + i * bins.step
const clamp = (value, low, high) => Math.min(high, Math.max(low, value))
const spaced = (sparsity) => -Math.log10(Math.max(1 - sparsity, 1e-6))
const percent = (share, digits = 1) => (share == null ? "–" : `${+(100 * share).toFixed(digits)}%`)
const thousands = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 })
const count = (value) => (value == null ? "–" : thousands.format(value))
const superscript = (n) => String(n).replace(/[-\d]/g, (c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)])
const power = (n) => (n === 0 ? "1" : n === 1 ? "10" : `10${superscript(n)}`)
const short = (n) => (n >= 1000 ? `${+(n / 1000).toFixed(1)}k` : `${+n.toFixed(2)}`)

function number(value) {
  if (value == null) return "–"
  const size = Math.abs(value)
  if (value === 0 || (size >= 1e-3 && size < 1e5)) return size < 1000 ? `${+value.toPrecision(3)}` : count(value)
  const [mantissa, exponent] = value.toExponential(1).split("e")
  return `${mantissa}·${power(+exponent)}`
}

function niceTicks(low, high, most) {
  const raw = (high - low) / most || 1
  const unit = 10 ** Math.floor(Math.log10(raw))
  const step = [1, 2, 5, 10].map((m) => m * unit).find((s) => s >= raw * 0.9)
  const ticks = []
  for (let t = Math.ceil(low / step) * step; t <= high + step * 1e-6; t += step) ticks.push(+t.toPrecision(10))
  return ticks
}

function powerTicks(low, high, most) {
  const [first, last] = [Math.ceil(low - 1e-9), Math.floor(high + 1e-9)]
  if (last - first < 1) {
    const fine = []
    for (let e = first - 1; e <= last + 1; e++) {
      for (const m of [1, 2, 5]) fine.push([e + Math.log10(m), number(m * 10 ** e)])
    }
    return fine.filter(([at]) => at >= low && at <= high)
  }
  const step = Math.ceil((last - first + 1) / most)
  const exponents = Array.from({ length: Math.floor((last - first) / step) + 1 }, (_, i) => first + i * step)
  return exponents.map((e) => [e, power(e)])
}

// Where a score stands on a histogram's axis, and back. log 1: log10; 2: a logarithm with a sign, linear close to 0; 0: plain.
function placeOf(score, { log, linear }) {
  if (score == null || (log === 1 && score <= 0)) return null
  return log === 1 ? Math.log10(score) : log === 2 ? Math.asinh(score / linear) / Math.LN10 : score
}
const scoreAt = (place, { log, linear }) =>
  log === 1 ? 10 ** place : log === 2 ? linear * Math.sinh(place * Math.LN10) : place

// 0 and powers of ten on both sides of it; the largest 1, 2 or 5 of one where no power fits.
function signedTicks(low, high, bins, most) {
  const at = (v) => placeOf(v, bins)
  const reach = scoreAt(Math.max(-low, high, 1e-9), bins)
  const [first, last] = [Math.ceil(Math.log10(bins.linear) - 1e-9), Math.floor(Math.log10(reach) + 1e-9)]
  const all = Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => first + i)
  const clear = all.filter((e) => at(10 ** e) > 0.12 * (high - low)) // not on top of the 0
  const powers = clear.length ? clear : all.slice(-1)
  const step = Math.ceil((powers.length * ((low < 0) + (high > 0))) / (most - 1)) || 1
  const sizes = powers.reverse().filter((_, i) => i % step === 0).map((e) => [10 ** e, power(e)])
  if (!sizes.length) {
    const fine = [5, 2, 1].map((m) => m * 10 ** Math.floor(Math.log10(reach))).find((v) => v <= reach * (1 + 1e-9))
    sizes.push([fine, number(fine)])
  }
  const ticks = [[0, "0"], ...sizes.flatMap(([v, text]) => [[at(v), text], [at(-v), `−${text}`]])]
  return ticks.filter(([v]) => v >= low && v <= high).sort(([a], [b]) => a - b)
}

// A panel's axes: frame, grid, ticks, titles; returns the scales.
function axes(w, h, { x, y, xTicks, yTicks, xTitle, yTitle, caption, twoLines, ruled = true }) {
  const m = { left: 46, right: 10, top: 24, bottom: 36 }
  const px = (v) => m.left + ((v - x[0]) / (x[1] - x[0] || 1)) * (w - m.left - m.right)
  const py = (v) => h - m.bottom - ((v - y[0]) / (y[1] - y[0] || 1)) * (h - m.top - m.bottom)
  const parts = []
  for (const [v, text] of yTicks) {
    const [from, to] = ruled ? [m.left, w - m.right] : [m.left - 4, m.left]
    parts.push(`<line class="${ruled ? "rule" : "axis"}" x1="${from}" x2="${to}" y1="${py(v)}" y2="${py(v)}"/>`)
    parts.push(`<text class="tick" text-anchor="end" x="${m.left - 6}" y="${py(v) + 3.5}">${esc(text)}</text>`)
  }
  parts.push(`<line class="axis" x1="${m.left}" x2="${w - m.right}" y1="${h - m.bottom}" y2="${h - m.bottom}"/>`)
  const free = [-Infinity, -Infinity]
  xTicks.forEach(([v, text], i) => {
    const half = 3.2 * String(text).length
    const row = twoLines ? i % 2 : 0
    if (px(v) - half < free[row]) return
    free[row] = px(v) + half + 4
    parts.push(`<line class="axis" x1="${px(v)}" x2="${px(v)}" y1="${h - m.bottom}" y2="${h - m.bottom + 4 + 11 * row}"/>`)
    const below = h - m.bottom + (twoLines ? 13 + 12 * row : 15)
    parts.push(`<text class="tick" text-anchor="middle" x="${px(v)}" y="${below}">${esc(text)}</text>`)
  })
  const [centre, middle] = [(m.left + w - m.right) / 2, (m.top + h - m.bottom) / 2]
  parts.push(`<text text-anchor="middle" x="${centre}" y="${h - 6}">${esc(xTitle)}</text>`)
  parts.push(`<text text-anchor="middle" transform="translate(11 ${middle}) rotate(-90)">${esc(yTitle)}</text>`)
  return { px, py, m, frame: parts.join(""), top: `<text class="caption" x="${w < 225 ? 6 : m.left}" y="13">${esc(caption)}</text>` }
}

const line = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("")

// A panel that has nothing to draw: it has no `at`.
const missing = (text) => ({ frame: "", markup: `<text class="caption" x="46" y="13">${esc(text)}</text>`, label: text })

function nearestOf(points, x, y) {
  let best = null
  for (const p of points) {
    const distance = y == null ? Math.abs(p.x - x) : Math.hypot(p.x - x, p.y - y)
    if (!best || distance < best.distance) best = { ...p, distance }
  }
  return best
}

