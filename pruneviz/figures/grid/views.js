// Drawing for the Compare grid: scales, axes and four views as SVG markup. grid.js follows in the same module.

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
function axes(w, h, { x, y, xTicks, yTicks, xTitle, yTitle, caption, twoLines }) {
  const m = { left: 46, right: 10, top: 24, bottom: 36 }
  const px = (v) => m.left + ((v - x[0]) / (x[1] - x[0] || 1)) * (w - m.left - m.right)
  const py = (v) => h - m.bottom - ((v - y[0]) / (y[1] - y[0] || 1)) * (h - m.top - m.bottom)
  const parts = []
  for (const [v, text] of yTicks) {
    parts.push(`<line class="rule" x1="${m.left}" x2="${w - m.right}" y1="${py(v)}" y2="${py(v)}"/>`)
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
  return { px, py, m, frame: parts.join(""), top: `<text class="caption" x="${m.left}" y="13">${esc(caption)}</text>` }
}

const line = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("")
function missing(h, text) {
  return { frame: "", markup: `<text class="caption" x="46" y="${h / 2}">${esc(text)}</text>`, label: text }
}

function nearestOf(points, x, y) {
  let best = null
  for (const p of points) {
    const distance = y == null ? Math.abs(p.x - x) : Math.hypot(p.x - x, p.y - y)
    if (!best || distance < best.distance) best = { ...p, distance }
  }
  return best
}

// Counts with all that lies below the axis in its lowest bin, as the recorded histograms have it.
function folded(counts, bins, start) {
  const first = clamp(Math.round((start - bins.range[0]) / bins.step), 0, counts.length - 1)
  const below = counts.slice(0, first).reduce((a, b) => a + b, 0)
  return counts.map((n, i) => (i < first ? 0 : i === first ? n + below : n))
}

// The four views. Each returns its frame (axes), markup, a label with numbers, and `at`: what is under the pointer.

function saliency({ run, now, layer, w, h, colour, scales }) {
  const recorded = run.saliency[now]
  const bars = recorded?.layers[layer.index]
  if (!bars) return missing(h, "no scores of this layer recorded")
  const { log } = recorded
  const x = scales.scores.get(run)
  const [kept, removed] = [bars.kept, bars.removed].map((counts) => folded(counts, recorded, x[0]))
  const top = Math.max(1, ...kept.map((k, i) => k + removed[i]))
  const gone = 1 - bars.alive / bars.size
  const zeros = bars.zeros ? `, ${count(bars.zeros)} are 0` : ""
  const { px, py, m, frame, top: caption } = axes(w, h, {
    x, y: [0, top * 1.08], caption: `${percent(gone)} removed, cut at ${number(bars.cut)}${w > 280 ? zeros : ""}`,
    xTicks: log === 1 ? powerTicks(...x, 4) : log ? signedTicks(...x, recorded, 5) : niceTicks(...x, 4).map((v) => [v, number(v)]),
    yTicks: niceTicks(0, top, 3).map((v) => [v, short(v)]),
    xTitle: log ? "score (log scale)" : "score", yTitle: `${run.unit} per bin`,
  })
  const shape = { kept: "", removed: "" }
  kept.forEach((k, i) => {
    const [x0, x1] = [px(edge(recorded, i)), px(edge(recorded, i + 1))]
    const gap = x1 - x0 > 3 ? 0.6 : 0
    const [left, right] = [x0.toFixed(1), (x1 - gap).toFixed(1)]
    const rect = (low, high) => `M${left} ${py(low).toFixed(1)}H${right}V${py(high).toFixed(1)}H${left}Z`
    if (k) shape.kept += rect(0, k)
    if (removed[i]) shape.removed += rect(k, k + removed[i])
  })
  const points = () => kept.map((k, i) => {
    const [a, b] = [edge(recorded, i), edge(recorded, i + 1)]
    const span = [a, b].map((v) => number(scoreAt(v, recorded))).join(" to ")
    const text = [`score ${span}`, `${run.unit}: ${count(k)} kept, ${count(removed[i])} removed`]
    return { x: px((a + b) / 2), y: py(k + removed[i]), text }
  }).filter((p) => p.x >= px(x[0]))
  const place = placeOf(bars.cut, recorded)
  const cut = place == null ? "" : px(clamp(place, ...x)).toFixed(1)
  return {
    frame,
    markup: `${caption}<path fill="${colour}" fill-opacity=".3" d="${shape.removed}"/>` +
      `<path fill="${colour}" d="${shape.kept}"/>` +
      (cut && `<line class="cut" x1="${cut}" x2="${cut}" y1="${m.top}" y2="${h - m.bottom}"/>`),
    label: `${percent(gone)} of ${count(bars.size)} ${run.unit} removed, threshold ${number(bars.cut)}`,
    at: (x) => nearestOf(points(), x),
  }
}

function spectra({ run, now, layer, w, h, colour, data, scales }) {
  const moments = [["before", run.spectra.start[layer.index]], ["after", run.spectra.tuned[now]?.[layer.index]]]
  const after = moments[1][1] ?? moments[0][1]
  if (!after) return missing(h, "no spectra of this layer recorded")
  const [low, high, last] = scales.spectra
  const ranked = (f) => `${f} ${(after[f].rank ?? 0).toFixed(1)} of ${after[f].of}`
  const { px, py, frame, top } = axes(w, h, {
    x: [-0.1 * last, last], y: [low, high], xTitle: "index (log scale)", yTitle: "eigenvalue",
    caption: `rank ${["A", "S"].map(ranked).join(", ")}`,
    xTicks: [1, 3, 10, 30, 100, 300, 1000, 3000].filter((i) => Math.log10(i) <= last).map((i) => [Math.log10(i), i]),
    yTicks: powerTicks(low, high, 4),
  })
  const parts = [top]
  const curves = []
  for (const [when, both] of moments) {
    for (const factor of both ? ["A", "S"] : []) {
      const curve = both[factor]
      const drawn = curve.v.map((v, k) => [px(Math.log10(data.indices[curve.of][k])), py(v)])
      if (!drawn.length) continue
      parts.push(`<path class="${when}" stroke="${colour}" d="${line(drawn)}"/>`)
      curves.push({ factor, when, curve, drawn })
      const [x, y] = drawn[0]
      if (both === after) parts.push(`<text class="name" x="${x - 11}" y="${y + 4}">${factor}</text>`)
    }
  }
  const points = () => curves.flatMap(({ factor, when, curve, drawn }) => drawn.map(([x, y], k) => ({
    x, y, text: [`${factor} ${when} pruning`, `eigenvalue ${data.indices[curve.of][k]} of ${curve.of}: ${number(10 ** curve.v[k])}`,
      `effective rank ${number(curve.rank)}, condition ${curve.condition == null ? "∞" : number(curve.condition)}`],
  })))
  const label = `effective rank ${["A", "S"].map(ranked).join(", ")}`
  return { frame, markup: parts.join(""), label, at: (x, y) => nearestOf(points(), x, y) }
}

// A smooth outline from evenly spaced quantiles: a Gaussian around each of them.
function outline(q, low, high) {
  const mean = q.reduce((a, b) => a + b) / q.length
  const sd = Math.sqrt(q.reduce((a, b) => a + (b - mean) ** 2, 0) / q.length)
  const width = Math.max(0.9 * sd * q.length ** -0.2, (high - low) / 60)
  const [from, to] = [Math.max(low, q[0] - width), Math.min(high, q.at(-1) + width)]
  const grid = Array.from({ length: 29 }, (_, i) => from + ((to - from) * i) / 28)
  const density = grid.map((v) => q.reduce((a, b) => a + Math.exp(-0.5 * ((v - b) / width) ** 2), 0))
  const top = Math.max(...density)
  return grid.map((v, i) => [v, density[i] / top])
}

function jacobians({ run, now, layer, w, h, colour, scales }) {
  const { start, pruned, repaired, tuned } = run.jacobians
  const moments = [["before", start], ["pruned", pruned[now]], ["repaired", repaired?.[now]], ["trained", tuned[now]]]
    .filter(([name]) => repaired || name !== "repaired").map(([name, all]) => [name, all?.[layer.index]])
  if (!moments.some(([, q]) => q)) return missing(h, "no Jacobians of this layer recorded")
  const high = scales.jacobians
  const median = (q) => q[(q.length - 1) / 2]
  const last = moments.findLast(([, q]) => q)
  const twoLines = repaired && w < 280
  const { px, py, m, frame, top } = axes(w, h, {
    x: [-0.5, moments.length - 0.5], y: [0, high], caption: `median ${number(median(last[1]))} ${last[0]}`,
    xTitle: twoLines ? "" : "dashed: 1 keeps a signal's size", yTitle: "singular value", twoLines,
    xTicks: moments.map(([name], i) => [i, name]), yTicks: niceTicks(0, high, 5).map((v) => [v, number(v)]),
  })
  const parts = [top, `<line class="cut" x1="${m.left}" x2="${w - m.right}" y1="${py(1)}" y2="${py(1)}"/>`]
  const points = []
  moments.forEach(([name, q], i) => {
    if (!q) return
    const half = 0.4 * (px(1) - px(0))
    const shape = outline(q, 0, high)
    const side = (sign) => shape.map(([v, d]) => [px(i) + sign * half * d, py(v)])
    const quarter = (q.length - 1) / 4
    const [q1, q2, q3] = [q[quarter], median(q), q[3 * quarter]].map((v) => py(clamp(v, 0, high)))
    const closed = `${line([...side(-1), ...side(1).reverse()])}Z`
    const fill = `fill="${colour}" fill-opacity="${{ before: 0, pruned: 0.2, repaired: 0.4, trained: 0.6 }[name]}" stroke="${colour}"`
    parts.push(`<path class="violin" ${fill} d="${closed}"/>`)
    parts.push(`<line class="quartile" x1="${px(i)}" x2="${px(i)}" y1="${q1}" y2="${q3}"/>`)
    parts.push(`<circle class="median" cx="${px(i)}" cy="${q2}" r="3.4"/>`)
    const [middle, all] = [[q[quarter], q[3 * quarter]], [q[0], q.at(-1)]].map((pair) => pair.map(number).join(" to "))
    points.push({ x: px(i), y: q2, text: [name, `median ${number(median(q))}`, `middle half ${middle}`, `all ${all}`] })
  })
  const label = moments.filter(([, q]) => q).map(([name, q]) => `${name} median ${number(median(q))}`).join(", ")
  return { frame, markup: parts.join(""), label, at: (x) => nearestOf(points, x) }
}

function curve({ run, now, w, h, colour, data, scales }) {
  const [low, high] = scales.curve
  const accuracy = run.tuned[now]
  const { px, py, m, frame, top } = axes(w, h, {
    x: scales.spread, y: [low, high], xTitle: "weights removed", yTitle: "test accuracy (%)",
    caption: `${percent(accuracy)} trained again, ${percent(run.pruned[now])} before`,
    xTicks: data.sparsities.map((s) => [spaced(s), percent(s)]),
    yTicks: niceTicks(low, high, 5).map((v) => [v, `${v}`]),
  })
  const path = ({ sparsities }, values) =>
    line(sparsities.flatMap((s, i) => (values[i] == null ? [] : [[px(spaced(s)), py(100 * values[i])]])))
  const parts = [frame]
  for (const other of data.runs) if (other !== run) parts.push(`<path class="other" d="${path(other, other.tuned)}"/>`)
  const dense = run.dense == null ? null : py(100 * run.dense)
  if (dense != null) parts.push(`<line class="cut" x1="${m.left}" x2="${w - m.right}" y1="${dense}" y2="${dense}"/>`)
  parts.push(`<path class="before" stroke="${colour}" d="${path(run, run.pruned)}"/>`)
  parts.push(`<path class="after" stroke="${colour}" d="${path(run, run.tuned)}"/>`)
  const points = run.sparsities.map((s, i) => ({
    x: px(spaced(s)), y: py(100 * (run.tuned[i] ?? low / 100)), sparsity: s,
    text: [
      `${percent(s)} removed`, `${percent(run.tuned[i])} trained again`, `${percent(run.pruned[i])} right after pruning`,
    ],
  }))
  const dot = points[now]
  const here = !dot || accuracy == null ? "" :
    `<line class="here" x1="${dot.x}" x2="${dot.x}" y1="${m.top}" y2="${h - m.bottom}"/>` +
    `<circle class="dot" fill="${colour}" cx="${dot.x}" cy="${dot.y}" r="6.5"/>`
  const label = `${percent(accuracy)} at ${percent(run.sparsities[now])} sparsity trained again, ` +
    `${percent(run.pruned[now])} right after pruning, dense ${percent(run.dense)}`
  return { frame: parts.join(""), markup: top + here, label, at: (x) => nearestOf(points, x) }
}

const VIEWS = [
  {
    key: "saliency", draw: saliency, height: 176, title: "Saliency",
    about: "The layer's weights, filters or directions by score. Pale: removed; solid: kept; dashed: the highest score removed. " +
      "The lowest bar holds all below.",
  },
  {
    key: "spectra", draw: spectra, height: 190, title: "Kronecker spectra",
    about: "Eigenvalues of the Fisher's factors A (inputs) and S (gradients). Dotted: before pruning; solid: after. Rank: the effective one.",
  },
  {
    key: "jacobians", draw: jacobians, height: 176, title: "Jacobian singular values",
    about: "How the layer stretches small changes of its input. Dot: median; bar: middle half. " +
      "Repaired: where survivors move when others leave.",
  },
  {
    key: "curve", draw: curve, height: 190, title: "Accuracy",
    about: "Solid: trained again; dotted: right after pruning; dashed: dense; thin: the other runs. " +
      "Click a point to go there.",
  },
]

// What panels of a row have in common, so that they compare: one scale for all runs and sparsities.
function sharedScales(data, layer) {
  const all = (pick) => data.runs.flatMap(pick).filter((v) => v != null)
  const here = (moments) => moments.map((m) => m?.[layer]).filter(Boolean)
  const spectrum = ({ spectra }) => here([spectra.start, ...spectra.tuned]).flatMap((m) => [m.A, m.S])
  const eigen = all((r) => spectrum(r).flatMap((c) => c.v))
  const last = Math.log10(Math.max(2, ...all((r) => spectrum(r).map((c) => data.indices[c.of][c.v.length - 1] ?? 1))))
  const most = (q) => Math.min(q.at(-1), 2 * q[Math.round(0.95 * (q.length - 1))])
  const singular = all(({ jacobians: j }) => here([j.start, ...j.pruned, ...(j.repaired ?? []), ...j.tuned]).map(most))
  const accuracy = all((r) => [...r.tuned, ...r.pruned, r.dense]).map((v) => 100 * v)
  const spread = data.sparsities.map(spaced)
  const [a, b] = [Math.min(...spread), Math.max(...spread)]
  const pad = 0.06 * (b - a) || 0.1
  return {
    spectra: eigen.length ? [Math.min(...eigen) - 0.3, Math.max(...eigen) + 0.4, last] : [-1, 1, last],
    jacobians: Math.max(1.2, ...singular) * 1.05,
    curve: accuracy.length ? [Math.floor(Math.min(...accuracy) / 10) * 10, 101.5] : [0, 101.5],
    spread: [a - pad, b + pad],
    scores: new Map(data.runs.map((run) => [run, scoreRange(run, layer)])),
  }
}

// Where a run's scores lie over all its sparsities (but the lowest 1%), so that the threshold moves and the axis stays.
function scoreRange(run, layer) {
  const spans = run.saliency.filter((bins) => bins?.layers[layer]).map((bins) => {
    const { kept, removed } = bins.layers[layer]
    const both = kept.map((k, i) => k + removed[i])
    const enough = 0.01 * both.reduce((a, b) => a + b, 0)
    let below = 0
    const first = both.findIndex((n) => (below += n) > enough)
    return first < 0 ? bins.range : [edge(bins, first), edge(bins, both.findLastIndex((n) => n > 0) + 1)]
  })
  return [Math.min(...spans.map((s) => s[0])), Math.max(...spans.map((s) => s[1]))]
}
