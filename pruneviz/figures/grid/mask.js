// The chosen layer's mask as an image: outputs down, inputs across, a shade for the share of weights kept in a block.

// The same shade is the same share everywhere. The square root, because at 98% sparsity a block keeps one weight in fifty.
const shade = (share) => Math.sqrt(share)

function mask({ run, now, layer, w, h, colour, data }) {
  const [shape, bytes] = [run.masks?.shapes[layer.index], run.masks?.kept[now]?.[layer.index]]
  if (!bytes) return missing("no mask recorded")
  const [rows, columns] = shape.map((n) => data.edges[n])
  const shares = Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))
  const across = columns.length - 1
  const area = (i) => {
    const [r, c] = [Math.floor(i / across), i % across]
    return (rows[r + 1] - rows[r]) * (columns[c + 1] - columns[c])
  }
  const kept = shares.reduce((sum, share, i) => sum + share * area(i), 0) / (WHOLE * shape[0] * shape[1])
  const densest = Math.max(...shares) / WHOLE
  const [outputs, inputs] = run.unit === DIRECTIONS ? ["output directions", "input directions"] : ["outputs", "inputs"]
  const { px, py, m, frame, top } = axes(w, h, {
    x: [0, shape[1]], y: [shape[0], 0], ruled: false, xTitle: inputs, yTitle: outputs,
    caption: `${percent(kept)} kept${densest < 1 ? `, densest block ${percent(densest, 0)}` : ""}`,
    xTicks: whole(shape[1], 5), yTicks: whole(shape[0], 4),
  })
  const paint = (canvas) => {
    const scale = window.devicePixelRatio || 1
    const at = (v) => Math.round(v * scale)
    canvas.width = at(w)
    canvas.height = at(h)
    const pen = canvas.getContext("2d")
    pen.fillStyle = colour
    const [xs, ys] = [columns.map((v) => at(px(v))), rows.map((v) => at(py(v)))]
    shares.forEach((share, i) => {
      if (!share) return
      const [r, c] = [Math.floor(i / across), i % across]
      pen.globalAlpha = shade(share / WHOLE)
      pen.fillRect(xs[c], ys[r], xs[c + 1] - xs[c], ys[r + 1] - ys[r])
    })
  }
  const at = (x, y) => {
    const value = (v, size, low, high) => ((v - low) / (high - low)) * size
    const r = blockOf(rows, value(y, shape[0], py(0), py(shape[0])))
    const c = blockOf(columns, value(x, shape[1], px(0), px(shape[1])))
    if (r == null || c == null) return null
    const share = shares[r * across + c] / WHOLE
    const near = area(r * across + c) > 2 * WHOLE // a byte cannot tell one weight of so many from none
    const said = share === 0 ? `${near ? "almost " : ""}none kept` : share === 1 ? `${near ? "almost " : ""}all kept`
      : share < 0.005 ? "under 1% kept" : `${percent(share, 0)} kept`
    const [x0, x1, y0, y1] = [px(columns[c]), px(columns[c + 1]), py(rows[r]), py(rows[r + 1])]
    return {
      x: (x0 + x1) / 2, y: y0, text: [`${span(outputs, rows, r)}, ${span(inputs, columns, c)}: ${said}`],
      mark: `<rect x="${x0}" y="${y0}" width="${x1 - x0}" height="${y1 - y0}"/>`,
    }
  }
  const blank = shares.reduce((sum, share) => sum + (share === 0), 0)
  const label = `${count(shape[0])} ${outputs} by ${count(shape[1])} ${inputs}, ${percent(kept)} kept, ` +
    `densest block ${percent(densest, 0)}, ${count(blank)} of ${count(shares.length)} blocks empty`
  const outline = `<rect class="outline" x="${m.left}" y="${m.top}" width="${w - m.left - m.right}" height="${h - m.top - m.bottom}"/>`
  return { frame: frame + outline, markup: top, label, at, paint, painting: `${bytes} ${shape} ${colour} ${w} ${h}` }
}

const whole = (size, most) => niceTicks(0, size, most).filter(Number.isInteger).map((v) => [v, count(v)])

function blockOf(edges, value) {
  const next = edges.findIndex((edge) => edge > value)
  return value < 0 || next < 1 ? null : next - 1
}

// "outputs 5–8", "input 3"
function span(noun, edges, i) {
  const [first, last] = [edges[i] + 1, edges[i + 1]]
  return first === last ? `${noun.replace(/s$/, "")} ${count(first)}` : `${noun} ${count(first)}–${count(last)}`
}
