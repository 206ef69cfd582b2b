"""The catalogue: what each method asks, answers and cites."""

import pandas as pd
import streamlit as st

from pruneviz.figures import base
from pruneviz.methods import METHODS, method_class

st.title("Methods")
st.markdown(
    "Every pruning method answers the same six questions: from which network it **starts**, by which **criterion** it scores "
    "which **units**, over which **scope** it ranks them, what becomes of the **survivors**, and on which **schedule**."
)
st.dataframe(
    pd.DataFrame(
        {
            "Method": card.title,
            "Paper": card.paper.short if card.paper else "–",
            "Starts": "from a trained network" if card.starts == "trained" else "before training",
            "Criterion": card.criterion,
            "Unit": card.unit,
            "Scope": card.scope,
            "Survivors": card.survivors,
            "Schedule": card.schedule,
        }
        for card in METHODS.values()
    ),
    hide_index=True,
)
key = st.segmented_control(
    "Method", list(METHODS), default=next(iter(METHODS)), key="method", format_func=lambda k: METHODS[k].title, required=True,
    bind="query-params",
)  # fmt: skip
card = METHODS[key]
st.header(card.title)
st.markdown(f"*{card.idea}*")
left, right = st.columns([3, 2], gap="large")
with left:
    st.latex(card.formula)
    st.markdown("\n".join(f"* ${symbol}$: {meaning}" for symbol, meaning in card.symbols))
    st.subheader("Step by step")
    st.markdown("\n".join(f"1. {step}" for step in card.steps))
with right:
    if card.paper:
        st.subheader("Paper")
        st.markdown(f"{card.paper.citation} {card.paper.section[:1].upper()}{card.paper.section[1:]}.")
        st.link_button("Read it", card.paper.url, icon=":material/open_in_new:")
        with st.expander("BibTeX"):
            st.code(card.paper.bibtex, language="bibtex")
    switched = [text for text in card.departures if "=" in text.split(" ")[0]]
    for heading, texts in (
        ("Switches, and what they change", switched),
        ("What always differs", [text for text in card.departures if text not in switched]),
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
    "pages/run.py", label=f"Run {card.title}", icon=":material/play_circle:", query_params={"methods": card.title}
)
st.html(f"<style>h2 {{ border-left: 6px solid {base.colour(key)}; padding-left: .6rem !important; }}</style>")
