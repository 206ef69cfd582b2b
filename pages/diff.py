"""Two files of weights beside each other: what is zero, gone, back and moved."""

import streamlit as st

from pruneviz.difference import drawing
from pruneviz.difference.found import spelled
from pruneviz.difference.page import table
from pruneviz.ui import card, two_files, words
from pruneviz.ui.server.uploads import REFUSED, uploads_allowed
from pruneviz.ui.text import plain

COMMAND = "pruneviz diff dense.safetensors pruned.safetensors --to diff.html"

words.head(
    "Diff two files",
    "What did pruning do to a network, whoever pruned it? Give its weights before and after, as "
    "[safetensors](https://huggingface.co/docs/safetensors), which any framework writes and which hold no code. Their tensors, tables of "
    "numbers, are compared number for number: no network code and no data are needed. The files stay on the machine that runs this "
    "dashboard, and are not kept.",
    "channel", "dense", "filter", "mask", "pruning", "sparsity", "weight",
)  # fmt: skip
if not uploads_allowed():
    st.info(plain(REFUSED), icon=":material/upload_file:")
    st.markdown("The command line compares the same files:")
    st.code(COMMAND, language=None, wrap_lines=True)
    st.stop()

left, right = st.columns(2)
with left:
    before = two_files.taken("Before: the dense network", "before", "Its weights, as a safetensors file.")
with right:
    after = two_files.taken("After: the pruned one", "after", "The same network, pruned, masked or smaller.")
if before is None or after is None:
    two_files.forget()
    st.markdown(
        "Both are needed. PyTorch writes one by safetensors.torch.save_file(net.state_dict(), FILE). Larger ones, and .pt, are compared on "
        "the command line:"
    )
    st.code(COMMAND, language=None, wrap_lines=True)
    st.stop()
found = two_files.compared([before, after], tuple(st.session_state[key].file_id for key in ("before", "after")))

st.header("What was found")
st.markdown("\n".join(f"* {plain(sentence)}" for sentence in found.said()))
with st.container(horizontal=True):
    st.download_button(
        "Everything (HTML)", lambda: found.html().encode(), "diff.html", "text/html", icon=":material/description:", on_click="ignore",
        help="This comparison in one file that opens in any browser, without a network: 5 MB.",
    )  # fmt: skip
    st.download_button(
        "Numbers (CSV)", lambda: found.frame().to_csv(index=False).encode(), "diff.csv", "text/csv", icon=":material/table:",
        on_click="ignore",
    )  # fmt: skip
card.show(drawing.OVERVIEW, drawing.OVERVIEW.data(found), key="fates-plot")

st.header("Every tensor")
shares = dict.fromkeys(("Zero before", "Zero after", "By"), st.column_config.NumberColumn(format="percent"))
counts = dict.fromkeys(("Gone", "Come back", "Moved"), st.column_config.NumberColumn(format="localized"))
widths = {"Tensor": 170, "Pattern": 240, "Shape": 150, "Kept": 240, "Note": 240}
texts = {name: st.column_config.TextColumn(width=width) for name, width in widths.items()}
st.dataframe(
    table(found), hide_index=True, alt=f"{len(found.tensors)} tensors, and what differs in each", placeholder="–",
    column_config={**shares, **counts, **texts},
)  # fmt: skip
st.caption(
    "Gone: zero or absent after, and not zero before. Moved: zero in neither, and another number; by: the norm of the differences over "
    "the norm that these numbers had. 2:4: of four neighbours along the inputs at most two are not zero."
)


@st.fragment
def one_tensor() -> None:
    """Its numbers before and after."""
    most = [t.name for t in drawing.changed(found, 1)]
    names = list(dict.fromkeys([*(t.name for t in found.tensors[: two_files.FEW]), *most]))
    name = st.selectbox("Tensor", names, names.index(most[0]) if most else 0, key="tensor", bind="query-params")
    chart = drawing.HISTOGRAM.data([found.tensor(name)])
    card.show(drawing.HISTOGRAM, chart, key="histograms-plot")


one_tensor()
for label, lone in ((found.before, found.only_before), (found.after, found.only_after)):
    if lone:
        with st.expander(plain(f"Only in {label}: {len(lone):,}"), type="compact"):
            st.markdown("\n".join(f"* {plain(f'{t.name}: {spelled(t.shape)}')}" for t in lone[:200]))
