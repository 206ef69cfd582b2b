"""Pick data, a network and methods; run; watch."""

import streamlit as st

from pruneviz.basics.errors import PrunevizError
from pruneviz.datasets import DATASETS
from pruneviz.methods import METHODS, method_class
from pruneviz.models import MODELS
from pruneviz.plan.comparison import plan
from pruneviz.plan.config import SPARSITIES
from pruneviz.ui import departures, forms, live, words
from pruneviz.ui.estimate import estimate
from pruneviz.ui.stores import open_store
from pruneviz.ui.text import plain

words.head(
    "Run",
    "Train a network, prune it by one or several methods, and watch what is left of it.",
    "bias", "convolution", "departure", "epoch", "filter", "fine-tuning", "gradient", "isometry", "layer", "loss",
    "mini-batch", "pruning", "ReLU", "repair", "rewind", "round", "sample", "score", "seed", "standard deviation",
    "survivor", "unit", "variance", "weight",
)  # fmt: skip
store = open_store()
watched = [id_ for id_ in st.query_params.get("watch", "").split(",") if id_ in store]
if watched:
    ids = ",".join(watched)
    with st.container(horizontal=True):
        st.page_link(
            "pages/compare.py", label="Compare these runs", icon=":material/view_column:", query_params={"runs": ids}
        )
        st.page_link("pages/run.py", label="Start another", icon=":material/add_circle:")
    live.panel(store, watched)
    st.stop()

st.markdown(
    "Choose what to prune and how. Everything else has a sensible value, and what you choose stays in the address."
)
data_column, model_column = st.columns(2)
with data_column:
    dataset = st.selectbox(
        "Data", list(DATASETS), key="data", format_func=lambda key: DATASETS[key].title, bind="query-params",
        on_change=forms.follow_data,
    )  # fmt: skip
    data = DATASETS[dataset]
    st.caption(data.idea)
    if not data.present:
        st.caption(
            f":orange[:material/download:] Not on this machine yet: the first run downloads {data.megabytes:g} MB."
        )
with model_column:
    fitting = [key for key, card in MODELS.items() if card.fits(data.shape, len(data.classes))]
    model = st.selectbox(
        "Network", fitting, fitting.index(data.model), key="model", format_func=lambda key: MODELS[key].title,
        bind="query-params",
    )  # fmt: skip
    st.caption(f"{MODELS[model].idea} {MODELS[model].layers}.")
    width = forms.width(MODELS[model])

methods = st.pills(
    "Methods", list(METHODS), selection_mode="multi", default=["random", "magnitude", "snip"], key="methods",
    format_func=lambda key: METHODS[key].title, bind="query-params",
)  # fmt: skip
for key in methods:
    found = METHODS[key]
    with st.expander(f"**{found.title}**{' · ' + found.paper.short if found.paper else ''}: {found.idea}"):
        st.latex(found.formula)
        st.markdown("\n".join(f"1. {step}" for step in found.steps))
left, right = st.columns(2)
sparsity_text = left.text_input(
    "Sparsities: the fractions of weights removed",
    ", ".join(f"{s:g}" for s in SPARSITIES),
    key="sparsity",
    bind="query-params",
)
if structured := [METHODS[key].title for key in methods if METHODS[key].unit.whole]:
    left.caption(f"For {', '.join(structured)}: the fraction of weights that the smaller network no longer has.")
seed_text = right.text_input(
    "Seeds: one run for each",
    "0",
    key="seed",
    bind="query-params",
    help="The seed decides the initial weights and every draw.",
)

with st.expander("Training budget, and departures from the papers", key="more"):
    chosen = forms.settings(data)
    params = {}
    for key in methods:
        cls = method_class(key)
        if set(cls.model_fields) - {"scope"}:
            st.markdown(f"**{METHODS[key].title}**")
            with st.container(horizontal=True):
                params[key] = forms.switches(cls, key=key)

try:
    given = {
        "dataset": dataset, "model": model, **width, **chosen,
        "sparsities": forms.numbers(sparsity_text, float, "Sparsities", "0.5, 0.9"),
    }  # fmt: skip
    wanted = plan(methods, seeds=forms.numbers(seed_text, int, "Seeds", "0, 1, 2"), params_of=params, **given)
except PrunevizError as error:
    st.error(plain(error), icon=":material/error:")
    st.stop()

departures.of_configs(wanted.configs)
for row in wanted.skipped:
    st.caption(f":material/block: {plain(row['method'])} is left out: {plain(row['reason'])}")
devices = store.workers()
device = None
if len(devices) > 1:
    device = st.selectbox("Device", [d["device"] for d in devices], key="device", bind="query-params")
st.caption(plain(estimate(store, wanted.configs, devices)))
if st.button("Run", type="primary", icon=":material/play_arrow:", disabled=store.readonly):
    ids = store.queue(wanted.configs, device=device)
    st.query_params.from_dict({"watch": ",".join(ids)})
    st.rerun()
