"""What papers claim, claim by claim, and what came out here."""

import pandas as pd
import streamlit as st

from pruneviz.papers import PAPERS, recorded
from pruneviz.ui import words

COLOURS = {"holds": "green", "does not hold": "red", "open": "gray"}

# on a phone a claim is a card: its text, and below it one line for each number
STACKED = """<style>
@media (max-width: 640px) {
  .st-key-claims thead { display: none; }
  .st-key-claims tr { display: block; padding: .5rem 0; border-bottom: 1px solid light-dark(#d5dbe6, #343e50); }
  .st-key-claims :is(th, td) { display: block; border: 0 !important; padding: .1rem .6rem !important; text-align: left; }
  .st-key-claims :is(th, td) p { display: inline; }
  .st-key-claims th { font-weight: 600; padding-bottom: .3rem !important; }
  .st-key-claims td::before { display: inline-block; width: 5rem; color: light-dark(#5a6172, #a3acbd); }
  .st-key-claims td:nth-of-type(1)::before { content: "Paper"; }
  .st-key-claims td:nth-of-type(2)::before { content: "Ours"; }
  .st-key-claims td:nth-of-type(3)::before { content: "Range"; }
  .st-key-claims td:nth-of-type(4)::before { content: "Seeds"; }
  .st-key-claims td:nth-of-type(5)::before { content: "Verdict"; }
}
</style>"""


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def span(claim: dict) -> str:
    """The range or interval beside our figure."""
    if claim["low"] is None or claim["high"] is None:
        return "–"
    return f"{number(claim['low'])} to {number(claim['high'])}"


words.head(
    "Papers",
    "What a paper claims, and what came out when its runs were repeated here. A claim **holds**, **does not hold**, or is "
    "**open** where the runs do not decide. All numbers are recorded results; the command below each measures them again.",
    "accuracy", "bias", "channel", "convolution", "curvature", "dense", "departure", "direction", "eigenbasis",
    "filter", "Fisher", "FLOPs", "isometry", "Jacobian", "layer", "loss", "mask", "median", "nats", "one shot",
    "orthogonal", "parameter", "patch", "pruning", "rank correlation", "rotation", "sample", "scope", "score",
    "seed", "singular value", "sparsity", "survivor", "switch", "unit", "weight",
)  # fmt: skip
found = {key: recorded(key) for key in PAPERS}
rows = []
for paper, result in zip(PAPERS.values(), found.values(), strict=True):
    verdicts = [claim["verdict"] for claim in result["claims"]] if result else []
    rows.append(
        {
            "Name": paper.key,
            "Reproduction": paper.title,
            "Paper": paper.paper.short if paper.paper else "–",
            **{verdict.capitalize(): verdicts.count(verdict) for verdict in COLOURS},
            "Recorded": result["date"] if result else "not yet",
        }
    )
st.dataframe(pd.DataFrame(rows), hide_index=True)
key = st.selectbox("Name", list(PAPERS), key="paper", bind="query-params")  # a link holds what the widget shows
paper, result = PAPERS[key], found[key]
quick, full = paper.minutes
st.header(paper.title)
st.markdown(f"*{paper.question}*")
if paper.paper:
    section = f" {paper.paper.section[:1].upper()}{paper.paper.section[1:]}." if paper.paper.section else ""
    st.markdown(f"{paper.paper.citation}{section}")
    st.link_button("Read it", paper.paper.url, icon=":material/open_in_new:")

if result is None:
    st.info("No result is recorded yet. Run one of the commands below with --record added.", icon=":material/terminal:")
else:
    st.subheader("Claim by claim")
    with st.container(key="claims"):
        st.table(
            pd.DataFrame(
                {
                    "Claim": claim["text"],
                    "Paper": number(claim["paper"]),
                    "Ours": number(claim["ours"]),
                    "Range": span(claim),
                    "Seeds": str(claim["seeds"]),
                    "Verdict": f":{COLOURS[claim['verdict']]}-badge[{claim['verdict']}]",
                }
                for claim in result["claims"]
            ).set_index("Claim")
        )
    st.html(STACKED)
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    st.caption(
        f"Recorded on {result['date']} with the {result['budget']} budget, in {result['seconds']:,.0f} s on {result['device']}: "
        f"{versions}. Shares and accuracies are fractions; the range is over seeds or networks, as the notes say."
    )
st.subheader("Measure it again")
command = f"python -m pruneviz papers {key}"
st.code(
    f"{command}           # about {quick:g} min on two CPU cores\n{command} --full    # about {full:g} min",
    language="bash",
    wrap_lines=True,
)
if result:
    for table in result["tables"]:
        st.subheader(table["title"])
        shown = pd.DataFrame(table["rows"], columns=table["columns"])
        st.dataframe(shown, hide_index=True, key=f"{key}-{table['key']}")
        if table["note"]:
            st.caption(table["note"])
