"""What of a text a model has in view: all of it, or where its positions run out the last part.

With `sliding_context=n` a text that fills all positions is read anew from its last n tokens, and goes on behind them
until the positions are full again. Each row slides for itself, when its own text is long enough.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tfloader.config import TransformerConfig
from tfloader.errors import ConfigError
from tfloader.generation.options import GenerationOptions

UNLIMITED = 2**31 - 1


class Window(NamedTuple):
    """Texts of any length in a model with so many positions.

    Attributes:
        positions: of the model; UNLIMITED where nothing slides.
        keep: how many tokens stay in view when the positions are full.
    """

    positions: int = UNLIMITED
    keep: int = UNLIMITED

    def view(self, tokens: np.ndarray, real: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The part of tokens and real [rows, length] to be read, `seen` [rows] tokens of it having been in view."""
        shown = np.where(seen >= self.positions, self.keep, seen)
        place = np.cumsum(real[:, ::-1], axis=1)[:, ::-1]  # counted from the end
        real = real & (place <= shown[:, None])
        first = int(np.argmax(real.any(axis=0)))
        return tokens[:, first:], real[:, first:]

    def steps_left(self, position: np.ndarray) -> int:
        """How many tokens may be read before a row has to slide; position [rows] is that of its next token."""
        return self.positions - int(position.max())


def window_for(config: TransformerConfig, real: np.ndarray, options: GenerationOptions) -> Window:
    """The window for prompts whose tokens are real [rows, length]; for T5, whose sources may be long, all is in view.

    Raises:
        ConfigError: the prompts and max_new_tokens exceed the positions and must not slide, or cannot.
    """
    positions, keep, new = config.max_position_embeddings, options.sliding_context, options.max_new_tokens
    causal = positions is not None and config.application == "lm"
    # Beams and candidates share what was read of their prompt.
    alone = options.num_beams == 1 and options.penalty_alpha is None
    if keep is not None and not causal:
        why = "has no last position" if positions is None else "needs its whole source in view"
        raise ConfigError(f"sliding_context is for causal models; this {config.family} model {why}. Leave it out.")
    if positions is None:
        return Window()
    if keep is not None and keep >= positions:
        raise ConfigError(
            f"sliding_context={keep} leaves no room for new tokens: the model has {positions} positions. "
            f"Say at most {positions - 1}; the fewer, the more seldom the text is read anew."
        )
    window = Window() if keep is None else Window(positions, keep)
    longest = int(window.view(real, real, real.sum(axis=1))[1].sum(axis=1).max())
    if longest + new > positions and not (keep and alone):
        fewer = f" or ask for at most {positions - longest} new tokens" if longest < positions else ""
        slides = "; sliding_context lets a text go on" if causal and alone else ""
        raise ConfigError(
            f"The longest prompt has {longest} tokens; with max_new_tokens={new} that exceeds the model's {positions} "
            f"positions. Shorten the prompt{fewer}{slides}."
        )
    return window
