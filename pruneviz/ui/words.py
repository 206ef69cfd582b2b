"""The field's words in plain ones, and the head of every page, which explains those that the page uses."""

from __future__ import annotations

import streamlit as st

GLOSSARY = {
    "accuracy": "The share of samples that the network classifies rightly.",
    "bias": "A number that a neuron adds to its sum, whatever comes in.",
    "channel": "One of the images that a convolution reads or writes.",
    "condition number": "The largest eigenvalue divided by the smallest: how unequal directions are.",
    "convolution": "A layer whose filters slide over an image and answer at every place.",
    "cross-entropy": "The usual loss of a classifier: how little probability it gave to the right answer, on average.",
    "curvature": "How sharply the loss bends when weights move: high where a small move costs much.",
    "damping": "A small number added before a matrix is inverted, so that tiny eigenvalues do not blow up.",
    "dense": "Whole, nothing pruned yet; of a layer: every input reaches every output.",
    "departure": "Where a run does something else than the paper's authors did.",
    "direction": "A combination of weights that is treated as one: all of them move together.",
    "effective rank": "How many eigenvalues really count; as many as there are if all are equal, 1 if one outweighs the rest.",
    "eigenbasis": "The directions in which a matrix only stretches, and does not turn.",
    "eigenvalue": "How much a matrix stretches along one of its own directions, its eigenvector.",
    "eigenvector": "A direction in which a matrix only stretches, and does not turn.",
    "epoch": "One pass of training through all training samples.",
    "filter": "The weights that together make one output channel of a layer.",
    "fine-tuning": "Training on after pruning, from the weights that are left.",
    "Fisher": "A measure of curvature: how strongly the network's predictions react when weights move.",
    "FLOPs": "Floating-point operations: the additions and multiplications of one pass through the network.",
    "Gauss-Newton": "A stand-in for the Hessian that is never negative.",
    "gradient": "The slope of the loss along every weight: training walks against it.",
    "Hessian": "The matrix of all second derivatives of the loss: its curvature along every pair of weights.",
    "inverse": "The matrix that undoes another one.",
    "isometry": "Keeping lengths: a layer that neither stretches nor shrinks what passes through.",
    "Jaccard index": "How alike two sets are: the share of their union that both have; 1 for the same set.",
    "Jacobian": "The table of how much each output moves when each input moves a little.",
    "kernel": "The small table of weights that a filter lays over each place of an image.",
    "Kronecker factor": "One of two small matrices whose product stands in for a layer's large curvature matrix.",
    "latency": "The time that one pass through the network takes.",
    "layer": "A stage of the network: it takes numbers in and passes new ones on.",
    "logarithmic": "An axis on which equal steps multiply: 1, 10, 100.",
    "logit": "What the network computes for a class before it becomes a probability.",
    "loss": "How wrong the network is; training makes it small.",
    "mask": "A list of ones and zeros: which weights stay and which are removed.",
    "median": "The value in the middle: half lie below it, half above.",
    "mini-batch": "The few samples that one step of training looks at.",
    "nats": "The unit of the loss: tossing a coin between two classes costs 0.69 of them.",
    "neuron": "One unit of a layer: it weighs its inputs, adds them up and passes the sum on.",
    "normalisation": "Bringing numbers to mean 0 and spread 1 within the network, which makes training easier.",
    "one shot": "All weights leave at once, instead of in several rounds.",
    "orthogonal": "Of a matrix: turning vectors without changing their length.",
    "parameter": "A number that training sets: a weight or a bias.",
    "patch": "The small piece of an image that a filter sees at one place.",
    "pruning": "Removing weights from a network and keeping it working.",
    "rank correlation": "How alike two orders are: 1 where they agree, 0 where they have nothing in common, -1 where they are reversed.",
    "ReLU": "What a neuron does with its sum: below 0 it passes on 0, above 0 the sum itself.",
    "repair": "Moving the weights that stay, so that signals keep their size.",
    "rewind": "To set weights back to the values that they had before training, or early in it.",
    "rotation": "A turn of the axes that changes no length: extra weights around a layer that work in another basis.",
    "round": "One turn of removing weights and training again.",
    "saliency": "The score by which a method ranks what it may remove; the lowest leaves first.",
    "sample": "One example from the data, such as one image.",
    "schedule": "Whether weights leave all at once or in rounds.",
    "scope": "Whether weights compete over the whole network or within their layer.",
    "score": "A guess of what a weight is worth; the lowest leave.",
    "seed": "The number that all random choices of a run follow from, its first weights too.",
    "singular value": "How much a matrix stretches along one direction; all are 1 where lengths stay as they are.",
    "sparsity": "The share of weights that are removed: at 90%, one in ten is left.",
    "stage": "The layers that see images of one size.",
    "standard deviation": "How far values lie from their mean, typically.",
    "survivor": "A weight that stays.",
    "switch": "A setting of one method.",
    "threshold": "The score that decides: what lies below is removed.",
    "unit": "What a method removes as a whole: a weight, a filter or a direction; where a network is described, a neuron.",
    "validation": "Samples kept out of training, to see how it goes.",
    "variance": "The mean squared distance of values from their mean.",
    "weight": "A number that says how strongly one value counts in the next; a network is made of them.",
}


def head(title: str, lead: str, *terms: str) -> None:
    """A page's title, what it is about, and the words that it uses, folded away."""
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        st.title(title, width="content")
        words = st.popover("Words used here", type="tertiary", icon=":material/dictionary:", key="words")
    st.markdown(lead)
    with words:
        st.markdown(
            "\n".join(f"* **{term[:1].upper()}{term[1:]}**: {GLOSSARY[term]}" for term in sorted(terms, key=str.lower))
        )
        st.markdown("[How each method works](methods)")  # to reach by keyboard: a long list scrolls
