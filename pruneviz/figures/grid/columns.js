// Which columns stand where: moved, pinned to the left, hidden. By the runs' ids.

const ICONS = {
  left: "M9.8 3.2 5 8l4.8 4.8", right: "M6.2 3.2 11 8l-4.8 4.8", pin: "M5.6 2.5h4.8L10 6.4l2.2 2.2v1.2H3.8V8.6L6 6.4zM8 9.8v4",
  hide: "M1.8 8S4 4 8 4s6.2 4 6.2 4S12 12 8 12 1.8 8 1.8 8zM3.2 13 12.8 3",
}
const icon = (key) => `<svg viewBox="0 0 16 16" aria-hidden="true"><path d="${ICONS[key]}"/></svg>`

class Columns {
  constructor(ids) {
    this.order = ids
    this.pinned = new Set()
    this.hidden = new Set()
  }

  // A wish, say from a link; ids that are not here are left out, and what it does not name stays behind in its order.
  take({ order = [], pinned = [], hidden = [] }) {
    const here = (ids) => ids.filter((id) => this.order.includes(id))
    const named = here(order)
    this.order = [...named, ...this.order.filter((id) => !named.includes(id))]
    this.pinned = new Set(here(pinned))
    this.hidden = new Set(here(hidden))
    if (this.hidden.size === this.order.length) this.hidden.clear()
  }

  get all() { return [true, false].flatMap((pin) => this.order.filter((id) => this.pinned.has(id) === pin)) }
  get shown() { return this.all.filter((id) => !this.hidden.has(id)) }

  // The column on that side, which this one may change places with.
  beside(id, side) {
    const shown = this.shown
    const other = shown[shown.indexOf(id) + (side === "left" ? -1 : 1)]
    return other && this.pinned.has(other) === this.pinned.has(id) ? other : null
  }

  may(id, act) {
    if (act === "hide") return this.shown.length > 1
    return act === "pin" ? this.order.length > 1 : Boolean(this.beside(id, act))
  }

  act(id, act) {
    if (!this.may(id, act)) return
    if (act === "left" || act === "right") {
      const other = this.beside(id, act)
      this.order = this.order.map((each) => (each === id ? other : each === other ? id : each))
    } else {
      const set = act === "pin" ? this.pinned : this.hidden
      if (!set.delete(id)) set.add(id)
    }
  }

  show(id) { this.hidden.delete(id) }

  get view() {
    const listed = (set) => this.order.filter((id) => set.has(id))
    return { order: this.order, pinned: listed(this.pinned), hidden: listed(this.hidden) }
  }
}

function head({ id, colour, label }, movable) {
  const name = esc(label)
  const button = (act, said) =>
    `<button type="button" data-act="${act}" aria-label="${said}" title="${said}">${icon(act)}</button>`
  const acts = !movable ? "" : `<div class="acts" role="group" aria-label="Column ${name}">${button("left", `Move ${name} left`)}` +
    `${button("right", `Move ${name} right`)}${button("pin", `Pin ${name} at the left`)}${button("hide", `Hide ${name}`)}</div>`
  return `<div class="cell head" data-run="${esc(id)}"><div class="who"><i style="background:${esc(colour)}"></i>` +
    `<div><b>${name}</b><small></small></div></div>${acts}</div>`
}
