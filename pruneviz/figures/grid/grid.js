// Two to six runs side by side, drawn here from data that is sent once: slider and layer menu never wait for Python.
// views.js comes before this in one module.

// A browser's time goes into parsing and layout: what is the same as before stays.
function paint(element, markup) {
  if (element.painted === markup) return
  element.innerHTML = element.painted = markup
}

function nearestIndex(values, sparsity) {
  const away = (value) => Math.abs(spaced(value) - spaced(sparsity))
  return values.reduce((best, value, i) => (away(value) < away(values[best]) ? i : best), 0)
}

class Grid {
  constructor(root) {
    this.root = root
    this.slider = root.querySelector(".slider")
    this.menu = root.querySelector(".menu")
    this.cells = root.querySelector(".cells")
    this.tip = root.querySelector(".tip")
    this.slider.addEventListener("input", () => this.move(+this.slider.value))
    this.slider.addEventListener("change", () => this.tell())
    this.menu.addEventListener("change", () => this.choose(+this.menu.value))
    this.cells.addEventListener("pointermove", (event) => this.hover(event))
    this.cells.addEventListener("pointerleave", () => this.leave())
    this.cells.addEventListener("click", (event) => this.click(event))
    new ResizeObserver(() => { if (this.width() !== this.drawnWidth) this.draw() }).observe(this.cells)
  }

  // New data, or new wishes from Python; the same data again leaves what the user is doing alone.
  update({ data, setStateValue }) {
    this.setStateValue = setStateValue
    const turned = data.turn !== this.turn
    if (data.id !== this.data?.id) {
      const [s, name] = [this.sparsity, this.data?.layers[this.layer]?.name]
      this.data = data
      this.layer = name == null ? data.layer : data.layers.findIndex((l) => l.name === name)
      if (this.layer < 0) this.layer = data.layer
      this.index = nearestIndex(data.sparsities, s ?? 0.9)
      this.build()
    } else if (!turned) return
    this.turn = data.turn
    if (turned && data.wish.sparsity != null) this.index = nearestIndex(data.sparsities, data.wish.sparsity)
    const wanted = turned ? data.layers.findIndex((l) => l.name === data.wish.layer) : -1
    if (wanted >= 0) this.layer = wanted
    this.scale()
    this.draw()
  }

  get sparsity() { return this.data?.sparsities[this.index] }

  build() {
    const { runs, layers, sparsities } = this.data
    this.slider.max = sparsities.length - 1
    this.root.querySelector(".stops").innerHTML = sparsities.map((s) => `<span>${percent(s)}</span>`).join("")
    const option = (l, i) => `<option value="${i}">${esc(l.name)} (${count(l.size)} weights)</option>`
    this.menu.innerHTML = layers.map(option).join("")
    this.cells.style.setProperty("--runs", runs.length)
    const head = ({ colour, label }) =>
      `<div class="head"><i style="background:${esc(colour)}"></i><div><b>${esc(label)}</b><small></small></div></div>`
    const panel = (view, i) =>
      `<svg role="img" data-run="${i}" data-view="${view.key}" height="${view.height}"><g></g><g></g><g class="mark"></g></svg>`
    const row = (view) =>
      `<div class="about"><p><b>${view.title}</b> ${view.about}</p></div>${runs.map((_, i) => panel(view, i)).join("")}`
    this.cells.innerHTML = [...runs.map(head), ...VIEWS.map(row), ...runs.map(() => "<dl></dl>")].join("")
    this.panels = [...this.cells.querySelectorAll("svg")]
  }

  width() { return Math.floor(this.panels?.[0]?.getBoundingClientRect().width || 0) }

  scale() { this.scales = sharedScales(this.data, this.layer) }

  move(index) {
    if (index === this.index) return
    this.index = index
    this.draw()
  }

  choose(layer) {
    this.layer = layer
    this.scale()
    this.draw()
    this.tell()
  }

  draw() {
    const { runs, layers, sparsities } = this.data
    const w = (this.drawnWidth = this.width())
    if (!w || !sparsities.length) return
    const started = performance.now()
    this.leave()
    this.slider.value = this.index
    this.menu.value = this.layer
    const said = percent(this.sparsity)
    this.slider.setAttribute("aria-valuetext", `${said} of the weights removed`)
    this.root.querySelector(".value").textContent = said
    this.root.querySelectorAll(".stops span").forEach((stop, i) => stop.classList.toggle("on", i === this.index))
    const layer = { ...layers[this.layer], index: this.layer }
    const now = runs.map((run) => nearestIndex(run.sparsities, this.sparsity))
    for (const svg of this.panels) {
      const view = VIEWS.find((v) => v.key === svg.dataset.view)
      const run = runs[svg.dataset.run]
      const place = { now: now[svg.dataset.run], layer, w, h: view.height, data: this.data, scales: this.scales }
      const drawn = view.draw({ run, colour: run.colour, ...place })
      paint(svg.children[0], drawn.frame)
      paint(svg.children[1], drawn.markup)
      const subject = view.key === "curve" ? view.title : `${view.title} of layer ${layer.name}`
      svg.setAttribute("aria-label", `${run.label}, ${subject}: ${drawn.label}.`)
      svg.at = drawn.at
    }
    this.cells.querySelectorAll(".head small").forEach((small, i) => {
      const own = runs[i].sparsities[now[i]]
      const elsewhere = own == null ? "no sparsity recorded yet" : `no ${said} here: shown at ${percent(own)}`
      small.textContent = own === this.sparsity ? runs[i].about : elsewhere
    })
    this.cells.querySelectorAll("dl").forEach((list, i) => { list.innerHTML = this.numbers(runs[i], now[i], layer) })
    this.root.dataset.ms = (performance.now() - started).toFixed(1)
  }

  numbers(run, now, layer) {
    const bars = run.saliency[now]?.layers[layer.index]
    const rows = [
      ["Accuracy, trained again", percent(run.tuned[now])],
      ["Right after pruning", percent(run.pruned[now])],
      ["Dense network", percent(run.dense)],
      [`Layer ${layer.name} left`, bars ? `${count(bars.alive)} of ${count(bars.size)} ${run.unit}` : "–"],
      [`Layer ${layer.name} removed`, bars ? percent(1 - bars.alive / bars.size) : "–"],
      ["Parameters left", count(run.parameters[now])],
    ]
    if (this.data.runs.some((r) => r.zeroed)) {
      rows.splice(2, 0, ["By zeroing only", percent((run.zeroed ?? run.pruned)[now])])
    }
    if (this.data.runs.some((r) => r.speedup)) {
      rows.push(["Speed, 256 samples", run.speedup?.[now] == null ? "as dense" : `${+run.speedup[now].toFixed(2)} × dense`])
    }
    if (run.connected[now] === 0) rows.push(["Path to the output", "none left"])
    return rows.map(([name, value]) => `<div><dt>${esc(name)}</dt><dd>${esc(value)}</dd></div>`).join("")
  }

  // Told to Python a moment after the hand has come to rest, and only what is new.
  tell() {
    clearTimeout(this.timer)
    this.timer = setTimeout(() => {
      const view = { sparsity: this.sparsity, layer: this.data.layers[this.layer]?.name ?? null }
      if (this.root.isConnected && JSON.stringify(view) !== this.told) this.setStateValue("view", view)
      this.told = JSON.stringify(view)
    }, 400)
  }

  find(event) {
    const svg = event.target.closest?.("svg")
    if (!svg?.at) return {}
    const box = svg.getBoundingClientRect()
    return { svg, box, found: svg.at(event.clientX - box.left, event.clientY - box.top) }
  }

  hover(event) {
    const { svg, box, found } = this.find(event)
    this.leave()
    if (!found) return
    svg.querySelector(".mark").innerHTML = `<circle cx="${found.x}" cy="${found.y}" r="4.5"/>`
    this.tip.innerHTML = found.text.map((part, i) => (i ? `<div>${esc(part)}</div>` : `<b>${esc(part)}</b>`)).join("")
    this.tip.hidden = false
    const outer = this.root.getBoundingClientRect()
    const left = box.left - outer.left + found.x
    const flip = left + this.tip.offsetWidth + 16 > outer.width
    this.tip.style.left = `${Math.max(0, flip ? left - this.tip.offsetWidth - 12 : left + 12)}px`
    this.tip.style.top = `${box.top - outer.top + Math.max(0, found.y - this.tip.offsetHeight - 8)}px`
  }

  leave() {
    this.tip.hidden = true
    this.cells.querySelectorAll(".mark").forEach((mark) => { if (mark.firstChild) mark.innerHTML = "" })
  }

  click(event) {
    const { svg, found } = this.find(event)
    if (svg?.dataset.view !== "curve" || !found) return
    this.move(nearestIndex(this.data.sparsities, found.sparsity))
    this.tell()
  }
}

export default function (component) {
  const root = component.parentElement.querySelector(".grid")
  root.grid ??= new Grid(root)
  root.grid.update(component)
}
