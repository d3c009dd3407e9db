"""The rows of a naming table: written one by one or a layer at a time, renamed, and expanded over a model's blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tfloader.config import TransformerConfig
from tfloader.naming.operations import Identity, LeadingOne, Repeated, Split, Transpose

# Placeholder by which a row is recognised -> for each block, what all placeholders stand for.
Blocks = Mapping[str, Sequence[Mapping[str, Any]]]
ATTENTION, FEED_FORWARD = "Transformer-{layer}-MultiHeadSelfAttention", "Transformer-{layer}-FeedForward"
QUERY_KEY_VALUE = tuple(f"{ATTENTION}/{name}" for name in ("query", "key", "value"))


@dataclass(frozen=True)
class Row:
    """One line of a naming table.

    Attributes:
        ours: variable path(s), `Layer-Name/attribute/.../variable`, with placeholders for the block (see `counts`).
        theirs: the tensor's name in the release, with placeholders for the block (and format widths).
        op: how the tensor becomes the variable(s) and back.
        part: the optional part of the model that it belongs to ("pooler", "mlm", ...): a tensor of a part that the
            user did not ask for may stay unread. The family declares what makes it (`Transformer.heads`).
        untied: the tensor exists only where the output layer is not the embedding (`tie_word_embeddings`).
    """

    ours: tuple[str, ...]
    theirs: str
    op: Identity = field(default_factory=Identity)
    part: str | None = None
    untied: bool = False

    def expand(self, counts: Blocks) -> Iterator[Row]:
        """Yields the row for every block that its placeholders count, one where blocks share a tensor."""
        counter = next((name for name in counts if f"{{{name}" in self.theirs), None)
        if counter is None:
            yield self
            return
        shared: dict[str, dict[tuple[str, ...], None]] = {}
        for names in counts[counter]:
            ours = tuple(path.format(**names) for path in self.ours)
            shared.setdefault(self.theirs.format(**names), {})[ours] = None
        for theirs, variables in shared.items():
            op = self.op if len(variables) == 1 else Repeated(len(variables), self.op)
            yield Row(tuple(path for ours in variables for path in ours), theirs, op, self.part, self.untied)


def renamed(rows: Sequence[Row], names: Mapping[str, str | None]) -> tuple[Row, ...]:
    """A table under other names: of `names` the first beginning that a tensor's name has is replaced.

    None takes the row out; names with none of the beginnings stay as they are.
    """
    result = []
    for item in rows:
        begin = next((begin for begin in names if item.theirs.startswith(begin)), None)
        if begin is None:
            result.append(item)
        elif (new := names[begin]) is not None:
            result.append(replace(item, theirs=new + item.theirs.removeprefix(begin)))
    return tuple(result)


def row(
    ours: str | Sequence[str], theirs: str, op: Identity | None = None, part: str | None = None, untied: bool = False
) -> Row:
    """Makes a row; one variable may be given as a plain string."""
    return Row((ours,) if isinstance(ours, str) else tuple(ours), theirs, op or Identity(), part, untied)


@dataclass(frozen=True)
class Layout:
    """How the files of a framework name the variables of a layer, and lay out kernels; makes the rows of a layer.

    Attributes:
        kernel, bias: what follows the layer's name for a dense layer.
        gamma, beta: the same for a normalisation.
        op: from the operation on a kernel that is stored as ours ([in, out]) to that on theirs.
    """

    kernel: str
    bias: str
    gamma: str
    beta: str
    op: Callable[[Identity], Identity] = lambda inner: inner

    def dense(self, ours: str | Sequence[str], theirs: str, part: str | None = None) -> tuple[Row, Row]:
        """The rows of a dense layer, or of several that are stored side by side."""
        names = (ours,) if isinstance(ours, str) else ours
        inner = Identity() if len(names) == 1 else Split(len(names))
        kernels, biases = ([f"{name}/{variable}" for name in names] for variable in ("kernel", "bias"))
        return row(kernels, theirs + self.kernel, self.op(inner), part), row(biases, theirs + self.bias, inner, part)

    def norm(self, ours: str, theirs: str, part: str | None = None) -> tuple[Row, Row]:
        """The rows of a layer normalisation."""
        return row(f"{ours}/gamma", theirs + self.gamma, part=part), row(f"{ours}/beta", theirs + self.beta, part=part)


TORCH = Layout(".weight", ".bias", ".weight", ".bias", lambda _: Transpose())  # kernels are [out, in]
TF = Layout("/kernel", "/bias", "/gamma", "/beta")
# GPT-2's: a Conv1D of transformers has kernels [in, out], OpenAI's convolutions of width one [1, in, out].
CONV1D = Layout(".weight", ".bias", ".weight", ".bias")
OPENAI = Layout("/w", "/b", "/g", "/b", LeadingOne)


def counts(config: TransformerConfig, stored: TransformerConfig | None = None) -> Blocks:
    """What the placeholders of the naming tables stand for in each block of a model.

    Args:
        config: the model's.
        stored: the checkpoint's, where the model shares its weights in another way.
    """
    decoder = config.num_decoder_layers
    layers = config.num_hidden_layers
    return {
        "layer": [{"layer": index} for index in range(layers)],
        "decoder_layer": [{"decoder_layer": index} for index in range(layers if decoder is None else decoder)],
        "group": _shared_blocks(config, stored or config),
    }


def _shared_blocks(config: TransformerConfig, stored: TransformerConfig) -> list[dict[str, Any]]:
    """ALBERT's blocks in order: the name that is common to their layers, and where their tensors stand.

    Blocks with the same weights have the same name: the first one's, or, if that is all blocks, one without a number.
    """
    places = [(group, inner) for group in groups(config) for inner in range(config.inner_group_num)]
    tensors = [(group, inner) for group in groups(stored) for inner in range(stored.inner_group_num)]
    alike = len(set(places)) == 1
    # A model of more layers than the checkpoint has nothing to fill the others with, unless all are alike.
    return [
        {"block": "Transformer" if alike else f"Transformer-{places.index(place)}", "group": group, "inner": inner}
        for place, (group, inner) in zip(places, tensors, strict=False)
    ]


def groups(config: TransformerConfig) -> list[int]:
    """The group of each layer, as ALBERT divides layers into groups with common weights."""
    layers = config.num_hidden_layers
    return [layer * config.num_hidden_groups // layers for layer in range(layers)]
