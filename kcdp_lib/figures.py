"""Figures of a run. Every function returns a matplotlib figure; `png` turns one into bytes. PNG only: nbval compares SVG and PDF text."""
from __future__ import annotations

import io
import textwrap
from typing import Mapping, Sequence
from unittest import mock

import matplotlib.figure
import numpy as np
import seaborn as sns
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import PercentFormatter
from scipy import ndimage

from kcdp_lib import datasets
from kcdp_lib.datasets import render, world

STYLE = {
    **sns.axes_style("whitegrid"), "font.size": 10, "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "grid.color": "#e6e6e6", "axes.edgecolor": "#999999", "font.family": "DejaVu Sans",
}
COLOURS = sns.color_palette("colorblind")
SOURCE, TARGET, GREY = COLOURS[0], COLOURS[1], (0.62, 0.62, 0.62)
NAMES = {
    "kcdp": "KCDP", "source_only": "source only", "source_only_no_knowledge": "source only,\nno knowledge",
    "caption_only": "caption only", "zero_shot_vlm": "zero-shot VLM", "majority": "majority",
}


class Figure(matplotlib.figure.Figure):
    """A figure that a notebook shows as PNG without pyplot, and so without its list of open figures."""

    def _repr_png_(self) -> bytes:
        return png(self, dpi=110)


def png(figure: matplotlib.figure.Figure, dpi: int = 130) -> bytes:
    """The figure as PNG bytes, without a date or version inside, so that equal figures are equal files."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def learning_curves(history: Sequence[Mapping], target_name: str = "target") -> Figure:
    """Losses, source accuracy and pseudo-label coverage by optimizer step. `history`: one mapping of numbers a step."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 3.2), layout="constrained")
        losses, fit, pseudo = figure.subplots(1, 3)
        steps = [row["step"] for row in history]
        _curve(losses, steps, history, "source_loss", SOURCE, "emotion, source")
        _curve(losses, steps, history, "alignment_loss", COLOURS[2], "counterfactual, source")
        _curve(losses, steps, history, "target_loss", TARGET, "emotion, pseudo-labels")
        losses.set(title="Losses", xlabel="optimizer step", ylim=(0, None))
        losses.legend(frameon=False)
        _curve(fit, steps, history, "source_accuracy", SOURCE, "source batch")
        fit.set(title="Accuracy on source batches", xlabel="optimizer step", ylim=(0, 1.02))
        _curve(pseudo, steps, history, "coverage", TARGET, target_name)
        pseudo.set(title="Target pictures with a pseudo-label", xlabel="optimizer step", ylim=(0, 1.02))
        for axes in (fit, pseudo):
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        return figure


def confusion(counts: Mapping[str, Sequence[Sequence[int]]], classes: Sequence[str]) -> Figure:
    """One matrix for each title in `counts`: colour is the share of the true class, numbers are pictures."""
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(4.6 * len(counts) + 0.4, 4.2), layout="constrained")
        for axes, (title, table) in zip(np.atleast_1d(figure.subplots(1, len(counts))), counts.items()):
            table = np.asarray(table)
            share = table / np.maximum(table.sum(1, keepdims=True), 1)
            sns.heatmap(share, ax=axes, annot=table, fmt="d", cmap="Blues", vmin=0, vmax=1, cbar=False, square=True, linewidths=0.5,
                        linecolor="white", xticklabels=classes, yticklabels=classes, annot_kws={"size": 9})
            axes.set(title=f"{title} (n = {table.sum()})", xlabel="predicted", ylabel="true")
            axes.tick_params(axis="x", rotation=35, length=0)
            axes.tick_params(axis="y", rotation=0, length=0)
        return figure


def bars(scores: Mapping[str, Mapping], metric: str = "macro_f1", title: str = "") -> Figure:
    """A horizontal bar with its 95% interval for each entry of `scores` (name -> what `metrics.scores` returned)."""
    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(7, 0.55 * len(scores) + 1.1), layout="constrained")
        axes = figure.subplots()
        names = [NAMES.get(name, name) for name in scores]
        values = np.array([entry[metric] for entry in scores.values()])
        low, high = np.array([entry[f"{metric}_interval"] for entry in scores.values()]).T
        colours = [TARGET if name == "kcdp" else GREY for name in scores]
        axes.barh(names, values, color=colours, height=0.62)
        # a resampled interval need not hold the observed value
        axes.errorbar(values, names, xerr=[np.maximum(values - low, 0), np.maximum(high - values, 0)], fmt="none", ecolor="#333333", elinewidth=1.2, capsize=3)
        for name, value, top in zip(names, values, high):
            axes.text(max(value, top) + 0.012, name, f"{value:.2f}", va="center", fontsize=9)
        axes.set(title=title, xlabel=metric.replace("_", " ").replace("f1", "F1"), xlim=(0, 1))
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        return figure


def contact_sheet(images: np.ndarray, titles: Sequence[str] = (), columns: int = 6, size: float = 1.5) -> Figure:
    """Pictures [N, 3, H, W] (uint8) in rows, with a title each where given; `size` is inches a picture."""
    with matplotlib.rc_context({**STYLE, "axes.titlelocation": "center", "axes.titleweight": "normal", "axes.titlesize": 9}):
        rows, lines = -(-len(images) // columns), max((title.count("\n") + 1 for title in titles), default=0)
        figure = Figure(figsize=(columns * size, rows * (size + 0.16 * lines + 0.08 * bool(lines))), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid:
            axes.set_axis_off()
        for axes, image in zip(grid, images):
            axes.imshow(np.asarray(image).transpose(1, 2, 0))
        for axes, title in zip(grid, titles):
            axes.set_title(title)
        return figure


def prediction_sheet(cards: Sequence[Mapping], columns: int = 2) -> Figure:
    """One card a picture: the picture, where one word of its caption attends, and what was said and predicted.

    A card holds `image` [3, H, W] uint8, `caption`, `predicted`, `probability`, `label` (None if unknown), `word` and `attention` [H, W] in [0, 1].
    """
    with matplotlib.rc_context({**STYLE, "axes.grid": False, "axes.titlelocation": "center", "axes.titleweight": "normal", "axes.titlesize": 9}):
        rows = -(-len(cards) // columns)
        figure = Figure(figsize=(5.6 * columns, 1.85 * rows), layout="constrained")
        grid = figure.subplots(rows, 3 * columns, squeeze=False, width_ratios=[1, 1, 1.5] * columns).reshape(-1, 3)
        for axes in grid.ravel():
            axes.set_axis_off()
        for (picture, map_, text), card in zip(grid, cards):
            image = np.asarray(card["image"]).transpose(1, 2, 0)
            picture.imshow(image)
            map_.imshow(image.mean(-1), cmap="gray", vmin=0, vmax=255)
            map_.imshow(card["attention"], cmap="magma", alpha=0.65, extent=(-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5), interpolation="bilinear")
            map_.set_title(f"“{card['word'][:20]}”" if card["word"] else "", style="italic")
            _describe(text, card)
        return figure


def _curve(axes, steps: Sequence[int], history: Sequence[Mapping], key: str, colour, label: str) -> None:
    """A faint line of raw values under a centred running mean; steps without a value (None) are skipped."""
    pairs = [(step, row[key]) for step, row in zip(steps, history) if row.get(key) is not None]
    if not pairs:
        return
    x, y = np.array(pairs, dtype=float).T
    half = len(x) // 30
    smooth = np.convolve(np.pad(y, half, mode="edge"), np.ones(2 * half + 1) / (2 * half + 1), mode="valid")
    axes.plot(x, y, color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(x, smooth, color=colour, linewidth=1.8, label=label)


def _describe(axes, card: Mapping) -> None:
    """Predicted and true emotion, then the caption, beside a picture."""
    right = card["label"] is None or card["label"] == card["predicted"]
    caption = card["caption"].removesuffix(".").strip().replace(" ,", ",")
    colour = "#333333" if card["label"] is None else ("#1a7f37" if right else "#b42318")
    lines = [(0.97, f"{card['predicted']}  {card['probability']:.0%}", {"weight": "bold", "fontsize": 11, "color": colour}),
             (0.79, "no label" if card["label"] is None else f"true: {card['label']}", {"fontsize": 9, "color": "#555555"}),
             (0.58, textwrap.fill(caption, 28), {"fontsize": 8, "linespacing": 1.3})]
    for height, line, look in lines:
        axes.text(0, height, line, transform=axes.transAxes, va="top", in_layout=False, **look)    # long text must not shrink the pictures



# ------------------------------------------------------------------------------------------------------------------ what perception sees (chapter 03)

def word_maps(rows: Sequence[Mapping], contrast: float = 0.5) -> Figure:
    """One row a picture: the picture, then the attention to single words laid over it, all on one scale (chapter 03); 1 is a word's mean over the picture.

    A row holds `image` [3, S, S] uint8, `title`, `heats` {word: attention [h, w]} and perhaps `regions` {word: where it is drawn [S, S], 0 or 1}, which are
    outlined. The scale ends at 1 - contrast and 1 + contrast. The grid is shown as it is, not smoothed; the picture beneath it gives the brightness.
    """
    with matplotlib.rc_context({**STYLE, "axes.grid": False, "axes.titlelocation": "center", "axes.titleweight": "normal"}):
        columns = 1 + max(len(row["heats"]) for row in rows)
        figure = Figure(figsize=(1.65 * columns + 0.8, 1.95 * len(rows)), layout="constrained")
        grid, scale = figure.subplots(len(rows), columns, squeeze=False), ScalarMappable(Normalize(1 - contrast, 1 + contrast), "RdBu_r")
        for axes in grid.ravel():
            axes.set_axis_off()
        for (first, *others), row in zip(grid, rows):
            image = np.asarray(row["image"]).transpose(1, 2, 0) / 255
            first.imshow(image)
            first.set_title(row["title"], weight="bold")
            for axes, (word, heat) in zip(others, row["heats"].items()):
                relative = np.asarray(heat) / np.asarray(heat).mean()
                tint = scale.to_rgba(np.kron(relative, np.ones((image.shape[0] // len(relative),) * 2)))[..., :3]
                axes.imshow(tint * (0.45 + 0.55 * image.mean(-1, keepdims=True)))
                axes.set_title(f"“{word}”", style="italic")
                if word in row.get("regions", {}):
                    axes.contour(np.asarray(row["regions"][word], dtype=float), [0.5], colors="black", linewidths=1.2)
        figure.colorbar(scale, ax=grid, fraction=0.025, pad=0.01, extend="both", label="attention, 1 = the word's mean")
        return figure


def change_boxes(changes: Mapping[str, Mapping[str, np.ndarray]], parts: Sequence[str]) -> Figure:
    """How far what is seen of a picture moves when one of its causes is exchanged (chapter 03): one panel a domain, one box a part and exchange.

    `changes`: {domain: {exchange: [N, P]}}, for N pictures and the P `parts`, as a fraction of the way to another picture altogether (1, the line).
    Boxes hold the middle half of the pictures, whiskers nine tenths.
    """
    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "y"}):
        figure = Figure(figsize=(10.5, 3.4), layout="constrained")
        panels = figure.subplots(1, len(changes), sharey=True, squeeze=False)[0]
        for axes, (domain, exchanges) in zip(panels, changes.items()):
            long = [(part, exchange, value) for exchange, table in exchanges.items() for row in np.asarray(table) for part, value in zip(parts, row)]
            part, exchange, value = zip(*long)
            sns.boxplot(x=part, y=value, hue=exchange, ax=axes, palette=[COLOURS[2], COLOURS[4], GREY][:len(exchanges)], whis=(5, 95), showfliers=False, linewidth=0.9,
                        width=0.75, legend=axes is panels[0])
            axes.axhline(1, color="#333333", linewidth=0.9, linestyle="--", zorder=0)
            axes.set(title=domain, xlabel="", ylabel="", ylim=(0, None))
        panels[0].set_ylabel("change, 1 = another picture")
        handles, labels = panels[0].get_legend_handles_labels()
        panels[0].get_legend().remove()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        return figure


def focus_points(focuses: Sequence[Mapping]) -> Figure:
    """Whether words find their place (chapter 03): a faint point for each word of a picture, the mean with its 95% interval for each group; 1, the line, is chance.

    `focuses`: one mapping a word, of `group` to "photos: events", and of further names to numbers (`perception.word_focus`), which are drawn side by side.
    """
    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "y"}):
        groups = list(dict.fromkeys(row["group"] for row in focuses))
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        axes = figure.subplots()
        long = [(row["group"], name, value) for row in focuses for name, value in row.items() if name != "group"]
        group, name, value = zip(*long)
        palette = dict(zip(dict.fromkeys(name), [COLOURS[2], GREY]))
        sns.stripplot(x=group, y=value, hue=name, order=groups, palette=palette, dodge=True, jitter=0.22, alpha=0.35, size=3, legend=False, ax=axes)
        sns.pointplot(x=group, y=value, hue=name, order=groups, palette=palette, dodge=0.4, errorbar=("ci", 95), seed=0, linestyle="none", marker="D", markersize=6,
                      err_kws={"linewidth": 2.2}, capsize=0.06, ax=axes)
        axes.axhline(1, color="#333333", linewidth=0.9, linestyle="--", zorder=0)
        axes.set_xticks(range(len(groups)), [f"{each}\n(n = {sum(row['group'] == each for row in focuses)})" for each in groups])
        axes.set(xlabel="", ylabel="attention inside, 1 = chance")
        axes.legend(frameon=False, title="inside", loc="upper right")
        return figure


def drawn_region(scene: world.Scene, domain: str, cause: str, size: int = 64, visible: int = 24) -> np.ndarray:
    """Where the built-in world draws the scene's "event" or "response": bool [size, size], enclosed holes included; all False if the domain hides it.

    The picture is drawn twice, the second time with this cause taken out of the finished drawing, so that everything else keeps its place; the region is
    where a channel changes by more than `visible` of 255 levels. What the subject covers is not in it.
    """
    draw = getattr(render, cause)

    def left_out(canvas: render.Canvas, *where) -> None:
        kept = len(canvas.shapes)
        draw(canvas, *where)    # it takes its share of chance, as before
        del canvas.shapes[kept:]

    whole = np.asarray(render.render(scene, domain, size), dtype=int)
    with mock.patch.multiple(render, **{cause: left_out}, TINTS=render.TINTS if cause == "event" else {}):    # a green face is a response, too
        rest = np.asarray(render.render(scene, domain, size), dtype=int)
    return ndimage.binary_fill_holes(np.abs(whole - rest).max(-1) > visible)


def drawn_words(pictures: datasets.Pictures, captions: Sequence[str], seed: int = 0) -> list[dict]:
    """Words of the captions whose place in the picture is known: the last of "beside a grave", where a grave is drawn and the caption says so (chapter 03).

    pictures: of a built-in domain, drawn from `seed`. Each entry holds `row`, `cause` ("event" or "response"), `word` and `region` [64, 64] bool. What covers
    more than half of a picture (a beach) or cannot be seen in it is left out: it has no place.
    """
    found, prior = [], world.DOMAINS[pictures.name].prior
    for row, (file, caption) in enumerate(zip(pictures.files, captions, strict=True)):
        scene = world.sample_scene(pictures.split, seed, int(file.stem), prior)
        seen = world.shown(scene, pictures.name)
        for cause, table in (("event", world.EVENTS), ("response", world.RESPONSES)):
            phrase = table[getattr(seen, cause)][0] if getattr(seen, cause) else None
            if phrase and phrase in caption:
                found.append({"row": row, "cause": cause, "word": phrase.split()[-1], "region": drawn_region(scene, pictures.name, cause)})
    return [entry for entry in found if 0 < entry["region"].mean() <= 0.5]


# ---------------------------------------------------------------------------------------------------------- what the switches are worth (book/differences)

def effects(changes: Mapping[str, Sequence[float]], spread: float, xlabel: str = "change of macro-F1 on the target") -> Figure:
    """A row for each entry of `changes` (name -> one number a seed): a dot for each seed, a line for their mean.

    The grey band is -spread to spread, what a mere change of seed does; an effect inside it says nothing.
    """
    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(7.5, 0.36 * len(changes) + 1.0), layout="constrained")
        axes = figure.subplots()
        axes.axvspan(-spread, spread, color="#ececec", zorder=0)
        axes.axvline(0, color="#777777", linewidth=1)
        for height, values in enumerate(changes.values()):
            axes.plot([np.mean(values)] * 2, [height - 0.28, height + 0.28], color=TARGET, linewidth=2.2)
            axes.plot(values, [height] * len(values), "o", color=TARGET, markersize=5, alpha=0.7)
        axes.set(yticks=range(len(changes)), yticklabels=list(changes), xlabel=xlabel, ylim=(len(changes) - 0.5, -0.5))
        axes.tick_params(axis="y", length=0)
        return figure


# ----------------------------------------------------------------------------------------------------- two domains in one space (chapter 02)

def one_space(found: Mapping[str, Mapping], gap: str = "gap") -> Figure:
    """A row for each space of features: how well the domains are told apart in it (left), and how well emotion is read in it (right); chapter 02.

    found: space -> {`gap`: what `metrics.proxy_a_distance` returned, and the two domains by name, the one that taught first: what `metrics.readability` returned}.
    Whiskers are the 95% intervals; the dotted line is guessing one of the classes.
    """
    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(10.5, 0.62 * len(found) + 1.6), layout="constrained")
        apart, read = figure.subplots(1, 2, sharey=True, width_ratios=[1, 1.25])
        first = next(iter(found.values()))
        source, target = (name for name in first if name != gap)
        rows = np.arange(len(found))
        _whiskered(apart, rows, [entry[gap] for entry in found.values()], "a_distance", GREY, 0.5)
        for name, colour, shift, about in ((source, SOURCE, -0.19, "the domain it learnt on"), (target, TARGET, 0.19, "the other domain")):
            _whiskered(read, rows + shift, [entry[name] for entry in found.values()], "macro_f1", colour, 0.36, f"{name}, {about} (n = {first[name]['n']})")
        read.axvline(1 / len(first[source]["per_class_recall"]), color="#333333", linewidth=1, linestyle=":", label="guessing")
        apart.set(title=f"Are {source} and {target} told apart?", xlabel=f"proxy A-distance: 0 never, 2 always (n = {first[gap]['n']})", xlim=(0, 2.3), xticks=(0, 0.5, 1, 1.5, 2))
        apart.set_yticks(rows, list(found))
        apart.invert_yaxis()
        read.set(title=f"Is emotion read, when learnt on {source} alone?", xlabel="macro-F1 of a linear classifier", xlim=(0, 1.08), xticks=(0, 0.2, 0.4, 0.6, 0.8, 1))
        for axes in (apart, read):
            axes.tick_params(axis="y", length=0)
        handles, labels = read.get_legend_handles_labels()
        figure.legend(handles[1:] + handles[:1], labels[1:] + labels[:1], loc="outside lower right", ncols=3, frameon=False)
        return figure


def _whiskered(axes, places: np.ndarray, entries: Sequence[Mapping], metric: str, colour, height: float, label: str | None = None) -> None:
    """Horizontal bars with their intervals and values, on rows of a shared axis."""
    values = np.array([entry[metric] for entry in entries])
    low, high = np.array([entry[f"{metric}_interval"] for entry in entries]).T
    axes.barh(places, values, color=colour, height=height, label=label)
    # a resampled interval need not hold the observed value
    axes.errorbar(values, places, xerr=[np.maximum(values - low, 0), np.maximum(high - values, 0)], fmt="none", ecolor="#333333", elinewidth=1.1, capsize=2.5)
    for place, value, top in zip(places, values, high):
        axes.text(max(value, top) + 0.012 * axes.get_xlim()[1], place, f"{value:.2f}", va="center", fontsize=8.5)
