// Two to six runs side by side, drawn here from data that is sent once: neither slider, layers nor columns wait for Python.

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
    for (const name of ["slider", "menu", "heads", "scroll", "rows", "shelf", "tip", "nothing", "controls"]) this[name] = root.querySelector(`.${name}`)
    this.slider.addEventListener("input", () => this.move(+this.slider.value))
    this.slider.addEventListener("change", () => this.tell())
    this.menu.addEventListener("change", () => this.choose(+this.menu.value))
    this.rows.addEventListener("pointermove", (event) => this.hover(event))
    this.rows.addEventListener("pointerleave", () => this.leave())
    this.rows.addEventListener("click", (event) => this.click(event))
    this.rows.addEventListener("keydown", (event) => this.key(event))
    this.heads.addEventListener("click", (event) => this.act(event.target.closest("button")))
    this.shelf.addEventListener("click", (event) => this.show(event.target.closest("button")))
    for (const [one, other] of [[this.heads, this.scroll], [this.scroll, this.heads]]) {
      one.addEventListener("scroll", () => { if (other.scrollLeft !== one.scrollLeft) other.scrollLeft = one.scrollLeft })
    }
    new ResizeObserver(() => { if (this.scroll.clientWidth !== this.spread) this.arrange() }).observe(this.scroll)
  }

  // New data, or new wishes from Python; the same data again leaves what the user is doing alone.
  update({ data, setStateValue }) {
    this.setStateValue = setStateValue
    const turned = data.turn !== this.turn
    let before
    if (data.id !== this.data?.id) {
      const [s, name] = [this.sparsity, this.data?.layers[this.layer]?.name]
      this.data = data
      this.layer = name == null ? data.layer : data.layers.findIndex((l) => l.name === name)
      if (this.layer < 0) this.layer = data.layer
      this.index = nearestIndex(data.sparsities, s ?? 0.9)
      before = this.columns?.view
      this.columns = new Columns(data.runs.map(({ id }) => id))
      this.build()
    } else if (!turned) return
    this.turn = data.turn
    if (turned && data.wish.sparsity != null) this.index = nearestIndex(data.sparsities, data.wish.sparsity)
    const wanted = turned ? data.layers.findIndex((l) => l.name === data.wish.layer) : -1
    if (wanted >= 0) this.layer = wanted
    this.columns.take(turned || !before ? data.wish : before)
    this.arrange()
  }

  get sparsity() { return this.data?.sparsities[this.index] }

  // Why there is nothing to draw, or nothing.
  get empty() {
    if (!this.data.runs.length) return "No run is chosen, so there is nothing to compare."
    if (!this.columns.shown.length) return "All columns are hidden. Show one of them."
    return this.data.sparsities.length ? "" : "None of these runs has recorded a sparsity yet."
  }

  build() {
    const { runs, layers, sparsities } = this.data
    this.slider.max = sparsities.length - 1
    this.root.querySelector(".stops").innerHTML = sparsities.map((s) => `<span>${percent(s)}</span>`).join("")
    const option = (l, i) => `<option value="${i}">${esc(l.name)} (${count(l.size)} weights)</option>`
    this.menu.innerHTML = layers.map(option).join("")
    this.heads.firstElementChild.innerHTML = runs.map((run) => head(run, !this.data.fixed && runs.length > 1)).join("")
    this.rows.innerHTML = [...VIEWS.map((view) => this.row(view)), `<div class="row">${runs.map(({ id }) =>
      `<div class="cell" data-run="${esc(id)}"><dl></dl></div>`).join("")}</div>`].join("")
    this.parts = new Map(runs.map(({ id }) => {
      const mine = [...this.root.querySelectorAll(".cell")].filter((cell) => cell.dataset.run === id)
      const views = mine.filter((cell) => cell.dataset.view).map((cell) => [cell.dataset.view, cell])
      const [about, numbers] = ["small", "dl"].map((name) => mine.map((cell) => cell.querySelector(name)).find(Boolean))
      return [id, { ...Object.fromEntries(views), about, numbers }]
    }))
  }

  row({ key, title, about, directions, seeds }) {
    const { runs, layers } = this.data
    const methods = runs.some((run) => run.over)
    const first = !methods || seeds ? "" : runs.every((r) => r.over.seeds[0] === runs[0].over.seeds[0])
      ? `Here: seed ${runs[0].over.seeds[0]}.` : `Here: one seed each (${runs.map((r) => r.over.seeds[0]).join(", ")}).`
    const said = [about, directions && runs.some((r) => r.unit === DIRECTIONS) && directions, methods && seeds, first]
    const bar = (run, i) => `<div role="option" id="pv-${esc(run.id)}-${i}" aria-selected="false"></div>`
    const bars = (run) => key !== "layers" ? "" :
      `<div class="bars" role="listbox" tabindex="0">${layers.map((_, i) => bar(run, i)).join("")}</div>`
    const cell = (run) => `<div class="cell" data-run="${esc(run.id)}" data-view="${key}">${key === "mask" ? "<canvas></canvas>" : ""}` +
      `<svg role="img" data-view="${key}"><g></g><g></g><g class="mark"></g></svg>${bars(run)}</div>`
    return `<div class="about"><p><b>${title}</b> ${said.filter(Boolean).join(" ")}</p></div><div class="row">${runs.map(cell).join("")}</div>`
  }

  get shown() { return this.columns.shown.map((id) => this.data.runs.find((run) => run.id === id)) }

  move(index) {
    if (index === this.index) return
    this.index = index
    this.draw()
  }

  choose(layer) {
    if (layer === this.layer) return
    this.layer = layer
    this.scale()
    this.draw()
    this.tell()
  }

  // The columns in their order, the pinned ones first.
  arrange() {
    const { all, shown, pinned, hidden } = this.columns
    const width = (this.spread = this.scroll.clientWidth)
    const cover = this.data.cover && document.querySelector(this.data.cover) // what lies over the top of the page
    const clear = !cover || /, 0\)$|^transparent$/.test(getComputedStyle(cover).backgroundColor)
    this.root.style.setProperty("--top", `${clear ? 0 : cover.offsetHeight}px`)
    const narrow = width < 480
    const least = narrow && shown.length > 1 && pinned.size ? Math.floor(width / 2) : 248
    const stuck = Math.max(1, Math.floor((width - 0.9 * least) / least)) // a pinned column must leave room for another
    this.root.style.setProperty("--column", `${least}px`)
    this.root.style.setProperty("--shown", shown.length)
    for (const row of this.root.querySelectorAll(".row")) {
      const cells = new Map([...row.children].map((cell) => [cell.dataset.run, cell]))
      all.forEach((id, i) => { if (row.children[i] !== cells.get(id)) row.insertBefore(cells.get(id), row.children[i]) })
      for (const [id, cell] of cells) {
        const place = shown.indexOf(id)
        const pin = pinned.has(id) && place < stuck
        cell.hidden = hidden.has(id)
        cell.classList.toggle("pinned", pin)
        cell.classList.toggle("last", pin && !(pinned.has(shown[place + 1]) && place + 1 < stuck))
        cell.style.left = pin ? `calc(${place} * var(--column))` : ""
      }
    }
    this.heads.querySelectorAll("button").forEach((button) => {
      const id = button.closest(".cell").dataset.run
      button.disabled = !this.columns.may(id, button.dataset.act)
      if (button.dataset.act === "pin") button.setAttribute("aria-pressed", pinned.has(id))
    })
    this.shelf.hidden = !hidden.size
    const named = this.data.runs.filter(({ id }) => hidden.has(id))
    paint(this.shelf, named.map(({ id, label }) => `<button type="button" data-show="${esc(id)}">Show ${esc(label)}</button>`).join(""))
    this.scale()
    this.draw()
  }

  act(button) {
    if (!button) return
    const id = button.closest(".cell").dataset.run
    this.columns.act(id, button.dataset.act)
    this.arrange()
    const next = [...this.shelf.children].find(({ dataset }) => dataset.show === id)
    if (button.dataset.act === "hide") next?.focus()
    else if (!button.disabled) button.focus() // moving its column took the focus away
    else button.parentElement.querySelector("button:not(:disabled)")?.focus()
    this.tell()
  }

  show(button) {
    if (!button) return
    this.columns.show(button.dataset.show)
    this.arrange()
    ;[...this.heads.querySelectorAll(".cell")].find(({ dataset }) => dataset.run === button.dataset.show)?.querySelector("[data-act=hide]")?.focus()
    this.tell()
  }

  width() {
    const cell = this.parts?.get(this.columns.shown[0])?.curve
    return Math.floor(cell?.querySelector("svg").getBoundingClientRect().width || 0)
  }

  scale() { this.scales = sharedScales(this.data, this.shown, this.layer) }

  draw() {
    const { layers, sparsities } = this.data
    const nothing = this.empty
    this.nothing.textContent = nothing
    this.nothing.hidden = !nothing
    this.controls.hidden = this.scroll.hidden = Boolean(nothing)
    this.menu.parentElement.hidden = !layers.length
    const w = nothing ? 0 : this.width()
    if (!w) return
    const started = performance.now()
    this.leave()
    this.slider.value = this.index
    this.menu.value = this.layer
    const said = percent(this.sparsity)
    this.slider.setAttribute("aria-valuetext", `${said} of the weights removed`)
    this.root.querySelector(".value").textContent = said
    this.root.querySelectorAll(".stops span").forEach((stop, i) => stop.classList.toggle("on", i === this.index))
    const [shown, layer] = [this.shown, { ...layers[this.layer], index: this.layer }]
    const now = new Map(shown.map((run) => [run.id, nearestIndex(run.sparsities, this.sparsity)]))
    const place = { layer, w, data: this.data, runs: shown, scales: this.scales }
    for (const view of VIEWS) {
      const h = Math.round(view.height * clamp(w / 300, 1, 1.5)) // wide panels are higher too
      const blank = !layers.length && !view.whole && missing("no layers recorded")
      const drawn = shown.map((run) => blank || view.draw({ run, now: now.get(run.id), colour: run.colour, h, ...place }))
      const high = drawn.some(({ at }) => at) ? h : 30
      shown.forEach((run, i) => this.panel(this.parts.get(run.id)[view.key], view, run, now.get(run.id), layer, high, drawn[i]))
    }
    for (const run of shown) {
      const { about, numbers } = this.parts.get(run.id)
      about.textContent = this.about(run, now.get(run.id), said)
      paint(numbers, this.numbers(run, now.get(run.id), layer))
    }
    this.root.dataset.ms = (performance.now() - started).toFixed(1)
  }

  panel(cell, view, run, now, layer, h, drawn) {
    const svg = cell.querySelector("svg")
    svg.setAttribute("height", h)
    paint(svg.children[0], drawn.frame)
    paint(svg.children[1], drawn.markup)
    const seed = run.over && !view.whole ? `, seed ${run.over.seeds[0]}` : ""
    const subject = view.whole || layer.name == null ? view.title : view.key === "layers" ? "share removed of each layer" : `${view.title} of layer ${layer.name}`
    svg.setAttribute("aria-label", `${run.label}${seed}, ${subject}: ${drawn.label}.`)
    cell.at = drawn.at
    const canvas = cell.querySelector("canvas")
    if (canvas && canvas.painted !== drawn.painting) {
      canvas.painted = drawn.painting
      if (drawn.paint) drawn.paint(canvas)
      else canvas.width = canvas.height = 0
    }
    const bars = cell.querySelector(".bars")
    if (!bars) return
    bars.hidden = !drawn.at
    bars.setAttribute("aria-label", `Layers of ${run.label}: choose one for all panels`)
    bars.setAttribute("aria-activedescendant", bars.children[layer.index]?.id ?? "")
    ;[...bars.children].forEach((bar, index) => {
      bar.setAttribute("aria-selected", index === layer.index)
      bar.setAttribute("aria-label", removedFrom(run, now, { name: this.data.layers[index].name, index }))
    })
  }

  about(run, now, said) {
    const own = run.sparsities[now]
    const seeds = run.over ? `${seedsOf(run)}, ` : ""
    if (own == null) return `${seeds}no sparsity recorded yet`
    return seeds + (own === this.sparsity ? run.about : `no ${said} here: shown at ${percent(own)}`)
  }

  numbers(run, now, layer) {
    const bars = run.saliency[now]?.layers[layer.index]
    const shown = run.over ?? run
    const rows = [
      [run.over ? `Accuracy, mean of ${seedsOf(run)}` : "Accuracy, trained again", percent(shown[TUNED][now])],
      ["Right after pruning", percent(shown[PRUNED][now])],
      ["Dense network", percent(shown[DENSE])],
      ...(layer.name == null ? [] : [
        [`Layer ${layer.name} left`, bars ? `${count(bars.alive)} of ${count(bars.size)} ${run.unit}` : "–"],
        [`Layer ${layer.name} removed`, percent(gone(run, now, layer.index))],
      ]),
      ["Parameters left", count(run.parameters[now])],
    ]
    if (this.data.runs.some((r) => r[ZEROED])) {
      rows.splice(2, 0, ["By zeroing only", percent((shown[ZEROED] ?? shown[PRUNED])[now])])
    }
    if (run.over) rows.splice(1, 0, ["Lowest to highest seed", `${percent(run.over.low[now])} to ${percent(run.over.high[now])}`])
    if (this.data.runs.some((r) => r.speedup)) {
      rows.push([`Speed, ${BATCH} samples`, run.speedup?.[now] == null ? "as dense" : `${+run.speedup[now].toFixed(2)} × dense`])
    }
    if (run.connected[now] === 0) rows.push(["Path to the output", "none left"])
    return rows.map(([name, value]) => `<div><dt>${esc(name)}</dt><dd>${esc(value)}</dd></div>`).join("")
  }

  // Told to Python a moment after the hand has come to rest, and only what is new.
  tell() {
    clearTimeout(this.timer)
    this.timer = setTimeout(() => {
      const view = { sparsity: this.sparsity ?? null, layer: this.data.layers[this.layer]?.name ?? null, ...this.columns.view }
      if (this.root.isConnected && JSON.stringify(view) !== this.told) this.setStateValue("view", view)
      this.told = JSON.stringify(view)
    }, 400)
  }

  find(event) {
    const cell = event.target.closest?.(".cell")
    if (!cell?.at) return {}
    const box = cell.querySelector("svg").getBoundingClientRect()
    return { cell, box, found: cell.at(event.clientX - box.left, event.clientY - box.top) }
  }

  hover(event) {
    const { cell, box, found } = this.find(event)
    this.leave()
    if (!found) return
    cell.querySelector(".mark").innerHTML = found.mark ?? `<circle cx="${found.x}" cy="${found.y}" r="4.5"/>`
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
    this.rows.querySelectorAll(".mark").forEach((mark) => { if (mark.firstChild) mark.innerHTML = "" })
  }

  click(event) {
    const bar = event.target.closest("[role=option]")
    if (bar) return this.choose([...bar.parentElement.children].indexOf(bar))
    const { cell, found } = this.find(event)
    if (cell?.dataset.view !== "curve" || !found) return
    this.move(nearestIndex(this.data.sparsities, found.sparsity))
    this.tell()
  }

  key(event) {
    if (!event.target.matches(".bars")) return
    const last = this.data.layers.length - 1
    const to = { ArrowRight: this.layer + 1, ArrowDown: this.layer + 1, ArrowLeft: this.layer - 1, ArrowUp: this.layer - 1, Home: 0, End: last }
    if (!(event.key in to) && event.key !== "Enter" && event.key !== " ") return
    event.preventDefault()
    if (event.key in to) this.choose(clamp(to[event.key], 0, last))
  }
}

export default function (component) {
  const root = component.parentElement.querySelector(".grid")
  root.grid ??= new Grid(root)
  root.grid.update(component)
}
