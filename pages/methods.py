"""The catalogue: what each method asks, answers and cites."""

import pandas as pd
import streamlit as st

from pruneviz.figures import base, two_weights
from pruneviz.methods import METHODS, method_class
from pruneviz.neuron import Neuron
from pruneviz.ui import card

st.title("Methods")
st.markdown(
    "Every pruning method answers the same six questions: from which network it **starts**, by which **criterion** it scores "
    "which **units**, over which **scope** it ranks them, what becomes of the **survivors**, and on which **schedule**."
)
st.dataframe(
    pd.DataFrame(
        {
            "Method": each.title,
            "Paper": each.paper.short if each.paper else "–",
            "Starts": "from a trained network" if each.starts == "trained" else "before training",
            "Criterion": each.criterion,
            "Unit": each.unit,
            "Scope": each.scope,
            "Survivors": each.survivors,
            "Schedule": each.schedule,
        }
        for each in METHODS.values()
    ),
    hide_index=True,
)
st.header("Try it on two weights")
st.markdown(
    "One neuron, trained to the bottom of its loss. Each method removes **one** of its two weights. Let the inputs go "
    "together, and moving the other weight helps; shrink an input, and its large weight matters less than it looks."
)


@st.fragment
def removing_one() -> None:
    left, right = st.columns(2)
    correlation = left.slider(
        "How much the two inputs go together (correlation)", -0.95, 0.95, 0.8, 0.05, key="together", bind="query-params"
    )
    size = right.slider(
        "Size of the second input; the first has 1", 0.2, 3.0, 0.5, 0.1, key="size", bind="query-params"
    )
    card.show(two_weights.FIGURE, two_weights.data(Neuron(correlation, size)), key="two-weights")


removing_one()
key = st.segmented_control(
    "Method", list(METHODS), default=next(iter(METHODS)), key="method", format_func=lambda k: METHODS[k].title, required=True,
    bind="query-params",
)  # fmt: skip
about = METHODS[key]
st.header(about.title, anchor="chosen")
st.markdown(f"*{about.idea}*")
left, right = st.columns([3, 2], gap="large")
with left:
    st.latex(about.formula)
    st.markdown("\n".join(f"* ${symbol}$: {meaning}" for symbol, meaning in about.symbols))
    st.subheader("Step by step")
    st.markdown("\n".join(f"1. {step}" for step in about.steps))
with right:
    if about.paper:
        st.subheader("Paper")
        st.markdown(f"{about.paper.citation} {about.paper.section[:1].upper()}{about.paper.section[1:]}.")
        st.link_button("Read it", about.paper.url, icon=":material/open_in_new:")
        with st.expander("BibTeX"):
            st.code(about.paper.bibtex, language="bibtex")
    switched = [text for text in about.departures if "=" in text.split(" ")[0]]
    for heading, texts in (
        ("Switches, and what they change", switched),
        ("What always differs", [text for text in about.departures if text not in switched]),
    ):
        if texts:
            st.subheader(heading)
            st.markdown("\n".join(f"* {text}" for text in texts))
fields = method_class(key).model_fields
st.dataframe(
    pd.DataFrame({"switch": n, "default": str(f.default), "what it does": f.description} for n, f in fields.items()),
    hide_index=True,
)
st.page_link(
    "pages/run.py", label=f"Run {about.title}", icon=":material/play_circle:", query_params={"methods": about.title}
)
st.html(f"<style>h2#chosen {{ border-left: 6px solid {base.colour(key)}; padding-left: .6rem !important; }}</style>")
