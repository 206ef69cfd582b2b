// The share of each layer that is gone. The bars can be clicked: one layer for all panels.

const gone = (run, now, index) => run.removed[now]?.[index]

// What is said of one bar: to the pointer, and to those who do not see it.
function removedFrom(run, now, { name, index }) {
  const share = gone(run, now, index)
  const said = share == null ? "not scored" : share === 1 ? "empty, all removed" : `${percent(share)} removed`
  return `layer ${name}: ${said}`
}

function layers({ run, now, layer, w, h, colour, data }) {
  const all = data.layers.map(({ name }, index) => ({ name, index, share: gone(run, now, index) }))
  const known = all.filter((each) => each.share != null)
  if (!known.length) return missing("no layers recorded")
  const empty = known.filter(({ share }) => share === 1)
  const overall = run.overall[now]
  const here = removedFrom(run, now, layer)
  const { px, py, m, frame, top } = axes(w, h, {
    x: [-0.5, all.length - 0.5], y: [0, 1.12], xTicks: [], yTicks: [0, 0.25, 0.5, 0.75, 1].map((v) => [v, 100 * v]),
    xTitle: `layer (share of its ${run.unit})`, yTitle: "removed (%)",
    caption: here + (empty.length && gone(run, now, layer.index) !== 1 ? `, ${empty.length} empty` : ""),
  })
  const step = px(1) - px(0)
  const half = Math.min(0.5 * step - (step > 6 ? 1.5 : 0.4), 26)
  const room = spaceFor()
  const chosenFirst = [...all].sort((a, b) => (b.index === layer.index) - (a.index === layer.index))
  const [parts, texts] = [[top], []]
  for (const { name, index, share } of chosenFirst) {
    const [x, chosen] = [px(index), index === layer.index]
    const fill = share === 1 ? "var(--empty)" : colour
    const high = share == null ? py(0) - 3 : py(share)
    const outline = share == null ? `class="unscored"` : `fill="${fill}" fill-opacity="${chosen ? 1 : share === 1 ? 0.8 : 0.42}"`
    parts.push(`<rect ${outline} x="${(x - half).toFixed(1)}" width="${(2 * half).toFixed(1)}" y="${high.toFixed(1)}" ` +
      `height="${(py(0) - high).toFixed(1)}"/>`)
    const said = share === 1 ? "empty" : step < 30 || share == null ? "" : `${+(100 * share).toFixed(1)}`
    if (said && room("above", x, said)) {
      texts.push(`<text class="value${share === 1 ? " empty" : ""}" text-anchor="middle" x="${x}" y="${high - 4}">${said}</text>`)
    }
    const wide = 3.3 * name.length
    const at = chosen ? clamp(x, Math.min(m.left + wide - 40, w - wide), w - wide) : x // others would be read as cut off
    if (at + wide <= w && room("below", at, name)) {
      parts.push(`<text class="${chosen ? "name" : "tick"}" text-anchor="middle" x="${at.toFixed(1)}" y="${h - 21}">${esc(name)}</text>`)
    }
    if (chosen) parts.push(`<path class="chosen" d="M${(x - half).toFixed(1)} ${py(0) + 2.5}h${(2 * half).toFixed(1)}"/>`)
  }
  if (overall != null) parts.push(`<line class="cut" x1="${m.left}" x2="${w - m.right}" y1="${py(overall)}" y2="${py(overall)}"/>`)
  parts.push(...texts)
  const points = () => all.map((each) => {
    const bars = run.saliency[now]?.layers[each.index]
    const left = bars ? `${count(bars.alive)} of ${count(bars.size)} ${run.unit} left` : `${count(data.layers[each.index].size)} weights`
    return { x: px(each.index), y: py(each.share ?? 0), text: [removedFrom(run, now, each), left] }
  })
  const [least, most] = [known.reduce((a, b) => (b.share < a.share ? b : a)), known.reduce((a, b) => (b.share > a.share ? b : a))]
  const lost = empty.length ? `; empty: ${empty.map(({ name }) => name).join(", ")}` : ""
  const label = `${here}; least ${percent(least.share)} in ${least.name}, most ${percent(most.share)} in ${most.name}${lost}; ` +
    `${percent(overall)} of all weights`
  return { frame, markup: parts.join(""), label, at: (x) => nearestOf(points(), x) }
}

// Says whether a text still fits in its row, and keeps its place if so.
function spaceFor() {
  const taken = {}
  return (row, x, text) => {
    const [from, to] = [x - 3.3 * text.length - 2, x + 3.3 * text.length + 2]
    const others = (taken[row] ??= [])
    if (others.some(([a, b]) => from < b && to > a)) return false
    others.push([from, to])
    return true
  }
}
