"""Small random networks of many families: of ``transformers``, which only tests read, and of our own."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

N = 4  # samples


@dataclass(frozen=True)
class Family:
    """A network in float64, samples and targets. ``tables``: parameters of several axes that multiply nothing."""

    net: nn.Module
    x: Any
    y: Tensor
    tables: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)  # of pv.score: loss, outputs


@contextmanager
def transformers() -> Iterator[Any]:
    """The library, imported as if there were no torchvision: one made for another torch stops its classes."""
    absent = object()
    kept = sys.modules.get("torchvision", absent)
    sys.modules["torchvision"] = None  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import transformers as library

            library.logging.set_verbosity_error()
            yield library
    finally:
        if kept is absent:
            del sys.modules["torchvision"]
        else:
            sys.modules["torchvision"] = kept  # type: ignore[assignment]


# of transformers; their dropout is 0, so that in training mode too a score is a number that can be checked


def tokens(positions: int, words: int) -> Tensor:
    return torch.randint(1, words, (N, positions))


def images(size: int, channels: int = 3) -> Tensor:
    return torch.randn(N, channels, size, size, dtype=torch.float64)


def classes(count: int = 3) -> Tensor:
    return torch.arange(N) % count


def bert(t: Any) -> Family:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    net = t.BertForSequenceClassification(
        t.BertConfig(**sizes, **still, vocab_size=20, max_position_embeddings=8, num_labels=3)
    )
    mask = torch.ones(N, 6, dtype=torch.long)
    mask[1, 4:] = mask[2, 3:] = 0  # padded
    tables = tuple(f"bert.embeddings.{k}_embeddings.weight" for k in ("word", "position", "token_type"))
    return Family(net, {"input_ids": tokens(6, 20), "attention_mask": mask}, classes(), tables)


def gpt2(t: Any) -> Family:
    still = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    net = t.GPT2LMHeadModel(t.GPT2Config(vocab_size=11, n_embd=8, n_layer=1, n_head=2, n_positions=8, **still))
    x, y = tokens(5, 11), tokens(5, 11)
    y[0, :2] = -100  # not counted
    return Family(net, {"input_ids": x}, y, ("transformer.wpe.weight",))


def llama(t: Any) -> Family:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
    net = t.LlamaForCausalLM(t.LlamaConfig(**sizes, vocab_size=11, num_key_value_heads=1, max_position_embeddings=8))
    return Family(net, {"input_ids": tokens(5, 11)}, tokens(5, 11), ("model.embed_tokens.weight",))


def vit(t: Any) -> Family:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
    net = t.ViTForImageClassification(t.ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=3))
    tables = ("vit.embeddings.cls_token", "vit.embeddings.position_embeddings")
    return Family(net, {"pixel_values": images(8)}, classes(), tables)


def swin(t: Any) -> Family:
    sizes = {"image_size": 16, "patch_size": 2, "embed_dim": 4, "depths": [2, 1], "num_heads": [1, 2], "window_size": 4}
    net = t.SwinForImageClassification(t.SwinConfig(**sizes, drop_path_rate=0.0, mlp_ratio=2.0, num_labels=3))
    tables = tuple(n for n, _ in net.named_parameters() if n.endswith("relative_position_bias_table"))
    return Family(net, {"pixel_values": images(16)}, classes(), tables)


def convnext(t: Any) -> Family:
    sizes = {"hidden_sizes": [6, 8], "depths": [1, 1], "num_stages": 2, "layer_scale_init_value": 0.5}
    net = t.ConvNextForImageClassification(t.ConvNextConfig(**sizes, num_labels=3))
    return Family(net, {"pixel_values": images(16)}, classes())


def resnet(t: Any) -> Family:
    sizes = {"embedding_size": 4, "hidden_sizes": [4, 6], "depths": [1, 1], "layer_type": "basic"}
    net = t.ResNetForImageClassification(t.ResNetConfig(**sizes, num_labels=3))
    return Family(net, {"pixel_values": images(24)}, classes())


def mobilenet(t: Any) -> Family:
    sizes = {
        "depth_multiplier": 0.02,
        "depth_divisible_by": 2,
        "min_depth": 2,
        "expand_ratio": 2.0,
        "image_size": 32,
        "finegrained_output": False,
    }
    config = t.MobileNetV2Config(**sizes, num_labels=3, classifier_dropout_prob=0.0, tf_padding=True)
    net = t.MobileNetV2ForImageClassification(config)
    return Family(net, {"pixel_values": images(32)}, classes())


def segformer(t: Any) -> Family:
    shapes = {
        "num_encoder_blocks": 2,
        "depths": [1, 1],
        "sr_ratios": [2, 1],
        "hidden_sizes": [4, 6],
        "patch_sizes": [3, 3],
    }
    sizes = {"strides": [2, 2], "num_attention_heads": [1, 2], "mlp_ratios": [2, 2], "decoder_hidden_size": 6}
    still = {"drop_path_rate": 0.0, "classifier_dropout_prob": 0.0}
    net = t.SegformerForSemanticSegmentation(t.SegformerConfig(**shapes, **sizes, **still, num_labels=3))
    y = torch.randint(0, 3, (N, 4, 4))
    y[:, 0] = -100
    return Family(net, {"pixel_values": images(8)}, y)


def whisper(t: Any) -> Family:
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    sizes = {"d_model": 8, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 12}
    net = WhisperEncoder(t.WhisperConfig(**sizes, num_mel_bins=6, max_source_positions=5))
    x = {"input_features": torch.randn(N, 6, 10, dtype=torch.float64)}
    y = torch.randn(N, 5, 8, dtype=torch.float64)
    return Family(net, x, y, ("embed_positions.weight",), {"loss": "squared", "outputs": "last_hidden_state"})


# of our own


class Recurrent(nn.Module):
    """Two layers of LSTM, read at the last step."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(5, 4, num_layers=2, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:  # [n, steps, 5]
        return self.head(self.rnn(x)[0][:, -1])


class Waves(nn.Module):
    """One-dimensional convolutions, dilated, with a sum around one of them."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(2, 6, 5, stride=2, padding=2), nn.Conv1d(6, 6, 3, padding="same", dilation=2)
        self.norm, self.c, self.head = nn.BatchNorm1d(6), nn.Conv1d(6, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:  # [n, 2, length]
        h = F.gelu(self.a(x))
        h = h + torch.tanh(self.norm(self.b(h)))
        return self.head(F.gelu(self.c(h)).mean(2))


class Unet(nn.Module):
    """Down, up by a transposed convolution, and joined with what went past; a class for each pixel."""

    def __init__(self):
        super().__init__()
        self.first, self.down = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.norm, self.up = nn.BatchNorm2d(6), nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.join, self.head = nn.Conv2d(8, 5, 3, padding=1), nn.Conv2d(5, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        past = F.silu(self.first(x))
        deep = F.silu(self.norm(self.down(past)))
        return self.head(F.silu(self.join(torch.cat([self.up(deep), past], 1))))


class Dense(nn.Module):
    """Each layer reads what all before it wrote, one after another."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Linear(10, 3)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(7), nn.BatchNorm2d(10)])
        self.layers = nn.ModuleList([nn.Conv2d(c, 3, 3, padding=1, bias=False) for c in (4, 7)])

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for norm, layer in zip(self.norms, self.layers, strict=False):
            h = torch.cat([h, layer(F.relu(norm(h)))], 1)
        return self.head(F.relu(self.norms[-1](h)).mean((2, 3)))


class Tied(nn.Module):
    """An autoencoder whose decoder is its encoder, turned round."""

    def __init__(self):
        super().__init__()
        self.enc, self.mid, self.bias = nn.Linear(8, 6), nn.Linear(6, 6), nn.Parameter(torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.mid(torch.tanh(self.enc(x))))
        return F.linear(h, self.enc.weight.t(), self.bias)


class Gated(nn.Module):
    """A block of RegNet: 1 x 1, a convolution with groups, gates from the means, 1 x 1, a sum around it."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.c = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 1), nn.Conv2d(8, 6, 1)
        self.b = nn.Conv2d(8, 8, 3, padding=1, stride=1, groups=4)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.BatchNorm2d(6)])
        self.squeeze, self.excite, self.head = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.stem(x))
        g = F.relu(self.norms[1](self.b(F.relu(self.norms[0](self.a(h))))))
        g = g * torch.sigmoid(self.excite(F.relu(self.squeeze(g.mean((2, 3), keepdim=True)))))
        return self.head(F.relu(h + self.norms[2](self.c(g))).mean((2, 3)))


def tied() -> Family:
    x = torch.randn(N, 8, dtype=torch.float64)
    return Family(Tied(), x, x, (), {"loss": "squared"})


THEIRS: dict[str, Callable[[Any], Family]] = {
    "BERT": bert, "GPT-2": gpt2, "Llama": llama, "ViT": vit, "Swin": swin, "ConvNeXt": convnext, "ResNet": resnet,
    "MobileNetV2": mobilenet, "SegFormer": segformer, "Whisper encoder": whisper,
}  # fmt: skip
OURS: dict[str, Callable[[], Family]] = {
    "LSTM": lambda: Family(Recurrent(), torch.randn(N, 6, 5, dtype=torch.float64), classes()),
    "Conv1d": lambda: Family(Waves(), torch.randn(N, 2, 16, dtype=torch.float64), classes()),
    "U-Net": lambda: Family(Unet(), images(6, 1), torch.randint(0, 3, (N, 6, 6))),
    "DenseNet": lambda: Family(Dense(), images(5), classes()),
    "tied autoencoder": tied,
    "RegNet": lambda: Family(Gated(), images(6), classes()),
}


def family(name: str) -> Family:
    """Always the same; normalisation has seen samples, so that evaluation mode differs from training mode."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        if name in OURS:
            found = OURS[name]()
        else:
            with transformers() as library:
                found = THEIRS[name](library)
        found.net.double()
        with torch.no_grad():
            for parameter in found.net.parameters():  # of biases and scales too
                parameter += 0.1 * torch.randn_like(parameter)
            found.net.train()
            found.net(**found.x) if isinstance(found.x, dict) else found.net(found.x)
        return Family(found.net.eval(), found.x, found.y, found.tables, found.options)
