// Four of the views, and the scales that the panels of a row share.

// Counts with all that lies below the axis in its lowest bin, as the recorded histograms have it.
function folded(counts, bins, from) {
  const first = clamp(Math.round((from - bins.range[0]) / bins.step), 0, counts.length - 1)
  const below = counts.slice(0, first).reduce((a, b) => a + b, 0)
  return counts.map((n, i) => (i < first ? 0 : i === first ? n + below : n))
}

// The four views. Each returns its frame (axes), markup, a label with numbers, and `at`: what is under the pointer.

function saliency({ run, now, layer, w, h, colour, scales }) {
  const recorded = run.saliency[now]
  const bars = recorded?.layers[layer.index]
  if (!bars) return missing("no scores of this layer recorded")
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
  const moments = [["before", run.spectra[START][layer.index]], ["after", run.spectra[TUNED][now]?.[layer.index]]]
  const after = moments[1][1] ?? moments[0][1]
  if (!after) return missing("no spectra of this layer recorded")
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
  const recorded = run.jacobians
  const moments = Object.entries(MOMENTS).filter(([key]) => recorded[key])
    .map(([key, name]) => [name, (key === START ? recorded[key] : recorded[key][now])?.[layer.index], key])
  if (!moments.some(([, q]) => q)) return missing("no Jacobians of this layer recorded")
  const high = scales.jacobians
  const median = (q) => q[(q.length - 1) / 2]
  const last = moments.findLast(([, q]) => q)
  const twoLines = recorded[REPAIRED] && w < 280
  const { px, py, m, frame, top } = axes(w, h, {
    x: [-0.5, moments.length - 0.5], y: [0, high], caption: `median ${number(median(last[1]))} ${last[0]}`,
    xTitle: twoLines ? "" : "dashed: 1 keeps a signal's size", yTitle: "singular value", twoLines,
    xTicks: moments.map(([name], i) => [i, name]), yTicks: niceTicks(0, high, 5).map((v) => [v, number(v)]),
  })
  const parts = [top, `<line class="cut" x1="${m.left}" x2="${w - m.right}" y1="${py(1)}" y2="${py(1)}"/>`]
  const points = []
  moments.forEach(([name, q, key], i) => {
    if (!q) return
    const half = 0.4 * (px(1) - px(0))
    const shape = outline(q, 0, high)
    const side = (sign) => shape.map(([v, d]) => [px(i) + sign * half * d, py(v)])
    const quarter = (q.length - 1) / 4
    const [q1, q2, q3] = [q[quarter], median(q), q[3 * quarter]].map((v) => py(clamp(v, 0, high)))
    const closed = `${line([...side(-1), ...side(1).reverse()])}Z`
    const fill = `fill="${colour}" fill-opacity="${{ [START]: 0, [PRUNED]: 0.2, [REPAIRED]: 0.4, [TUNED]: 0.6 }[key]}" stroke="${colour}"`
    parts.push(`<path class="violin" ${fill} d="${closed}"/>`)
    parts.push(`<line class="quartile" x1="${px(i)}" x2="${px(i)}" y1="${q1}" y2="${q3}"/>`)
    parts.push(`<circle class="median" cx="${px(i)}" cy="${q2}" r="3.4"/>`)
    const [middle, all] = [[q[quarter], q[3 * quarter]], [q[0], q.at(-1)]].map((pair) => pair.map(number).join(" to "))
    points.push({ x: px(i), y: q2, text: [name, `median ${number(median(q))}`, `middle half ${middle}`, `all ${all}`] })
  })
  const label = moments.filter(([, q]) => q).map(([name, q]) => `${name} median ${number(median(q))}`).join(", ")
  return { frame, markup: parts.join(""), label, at: (x) => nearestOf(points, x) }
}

function curve({ run, now, w, h, colour, data, runs, scales }) {
  const [low, high] = scales.curve
  const shown = run.over ?? run // the mean over seeds, where columns are methods
  const accuracy = shown[TUNED][now]
  const spread = run.over && run.over.seeds.length > 1 ? [run.over.low[now], run.over.high[now]].map((v) => percent(v)) : null
  const { px, py, m, frame, top } = axes(w, h, {
    x: scales.spread, y: [low, high], xTitle: "weights removed", yTitle: "test accuracy (%)",
    caption: spread ? `mean ${percent(accuracy)}${w < 225 ? "" : `, seeds ${spread.join(" to ")}`}`
      : `${percent(accuracy)} trained again${w < 225 ? "" : `, ${percent(shown[PRUNED][now])} before`}`,
    xTicks: data.sparsities.map((s) => [spaced(s), percent(s)]),
    yTicks: niceTicks(low, high, 5).map((v) => [v, `${v}`]),
  })
  const places = (of, values) => of.sparsities.flatMap((s, i) => (values[i] == null ? [] : [[px(spaced(s)), py(100 * values[i])]]))
  const path = (of, values) => line(places(of, values))
  const parts = [frame]
  for (const other of runs) if (other !== run) parts.push(`<path class="other" d="${path(other, (other.over ?? other)[TUNED])}"/>`)
  const whole = shown[DENSE] == null ? null : py(100 * shown[DENSE])
  if (whole != null) parts.push(`<line class="cut" x1="${m.left}" x2="${w - m.right}" y1="${whole}" y2="${whole}"/>`)
  if (spread) {
    const around = line([...places(run, run.over.low), ...places(run, run.over.high).reverse()])
    parts.push(`<path class="band" fill="${colour}" d="${around}Z"/>`)
  }
  parts.push(`<path class="before" stroke="${colour}" d="${path(run, shown[PRUNED])}"/>`)
  parts.push(`<path class="after" stroke="${colour}" d="${path(run, shown[TUNED])}"/>`)
  const points = run.sparsities.map((s, i) => ({
    x: px(spaced(s)), y: py(100 * (shown[TUNED][i] ?? low / 100)), sparsity: s,
    text: [
      `${percent(s)} removed`, `${percent(shown[TUNED][i])} trained again`, `${percent(shown[PRUNED][i])} right after pruning`,
      ...(run.over ? [`mean of ${seedsOf(run)}, ${percent(run.over.low[i])} to ${percent(run.over.high[i])}`] : []),
    ],
  }))
  const dot = points[now]
  const here = !dot || accuracy == null ? "" :
    `<line class="here" x1="${dot.x}" x2="${dot.x}" y1="${m.top}" y2="${h - m.bottom}"/>` +
    `<circle class="dot" fill="${colour}" cx="${dot.x}" cy="${dot.y}" r="6.5"/>`
  const label = `${run.over ? `mean of ${seedsOf(run)} ` : ""}${percent(accuracy)} at ${percent(run.sparsities[now])} sparsity trained again, ` +
    `${spread ? `from ${spread.join(" to ")}, ` : ""}${percent(shown[PRUNED][now])} right after pruning, dense ${percent(shown[DENSE])}`
  return { frame: parts.join(""), markup: top + here, label, at: (x) => nearestOf(points, x) }
}

const seedsOf = ({ over }) => (over.seeds.length === 1 ? "1 seed" : `${over.seeds.length} seeds`)

// The rows from top to bottom; `whole` ones show the network, the others a layer.
const VIEWS = [
  {
    key: "layers", draw: layers, height: 164, title: "Layers",
    about: "The share of each layer that is removed. Dashed: of all weights of the network; red: a layer that lost everything. " +
      "Click a bar to see that layer everywhere.",
  },
  {
    key: "saliency", draw: saliency, height: 176, title: "Saliency",
    about: "The layer's weights, filters or directions by score. Pale: removed; solid: kept; dashed: the highest score removed. " +
      "The lowest bar holds all below.",
  },
  {
    key: "mask", draw: mask, height: 196, title: "Mask",
    about: "Where the layer's weights are left, in blocks of neighbours. " +
      "<span class=\"shades\"><span>none kept</span><i></i><span>all</span></span>",
    directions: "Directions: rows and columns are those of the eigenbasis.",
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
    key: "curve", draw: curve, height: 190, title: "Accuracy", whole: true,
    about: "Solid: trained again; dotted: right after pruning; dashed: dense; thin: the other columns. " +
      "Click a point to go there.",
    seeds: "Lines are means over the seeds; the shaded band reaches from the lowest seed to the highest.",
  },
]

const AFTER = Object.keys(MOMENTS).filter((key) => key !== START)

// What panels of a row have in common, so that they compare: one scale for all columns shown and all sparsities.
function sharedScales(data, runs, layer) {
  const all = (pick) => runs.flatMap(pick).filter((v) => v != null)
  const here = (moments) => moments.map((m) => m?.[layer]).filter(Boolean)
  const spectrum = ({ spectra }) => here([spectra[START], ...spectra[TUNED]]).flatMap((m) => [m.A, m.S])
  const eigen = all((r) => spectrum(r).flatMap((c) => c.v))
  const last = Math.log10(Math.max(2, ...all((r) => spectrum(r).map((c) => data.indices[c.of][c.v.length - 1] ?? 1))))
  const most = (q) => Math.min(q.at(-1), 2 * q[Math.round(0.95 * (q.length - 1))])
  const singular = all(({ jacobians: j }) => here([j[START], ...AFTER.flatMap((key) => j[key] ?? [])]).map(most))
  const accuracy = all((r) => [r, r.over ?? r]).flatMap((r) => [...r[TUNED], ...r[PRUNED], ...(r.low ?? []), r[DENSE]]).filter((v) => v != null).map((v) => 100 * v)
  const spread = data.sparsities.map(spaced)
  const [a, b] = [Math.min(...spread), Math.max(...spread)]
  const pad = 0.06 * (b - a) || 0.1
  return {
    spectra: eigen.length ? [Math.min(...eigen) - 0.3, Math.max(...eigen) + 0.4, last] : [-1, 1, last],
    jacobians: Math.max(1.2, ...singular) * 1.05,
    curve: accuracy.length ? [Math.floor(Math.min(...accuracy) / 10) * 10, 101.5] : [0, 101.5],
    spread: [a - pad, b + pad],
    scores: new Map(runs.map((run) => [run, scoreRange(run, layer)])),
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
