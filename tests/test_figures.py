"""Figures show the numbers that they are given."""

import warnings
from pathlib import Path

import numpy as np
import pandas
import pytest
from matplotlib.cbook import is_math_text
from matplotlib.text import Text

from kcdp_book import figures, regions
from kcdp_lib import world
from kcdp_lib.datasets import Pictures
from kcdp_lib.figures import (
    bars,
    confusion,
    plain_text,
    prediction_sheet,
    side_titles,
    whole_method,
)
from kcdp_lib.triplets import parse_triplets
from kcdp_lib.world import Dials, causes
from kcdp_lib.world.events import WIDE

# ---------------------------------------------------------------- one space (chapter 02)


def told(value):
    return {
        "n": 40,
        "a_distance": value,
        "a_distance_interval": [max(value - 0.1, 0), min(value + 0.1, 2)],
    }


def read(value, n):
    return {
        "n": n,
        "macro_f1": value,
        "macro_f1_interval": [value - 0.05, value + 0.05],
        "per_class_recall": dict.fromkeys("abcd", value),
    }


@pytest.fixture
def spaces():
    return {
        "pictures": {"gap": told(1.9), "old": read(0.6, 25), "new": read(0.2, 15)},
        "words": {"gap": told(0.4), "old": read(0.8, 25), "new": read(0.7, 15)},
    }


def lengths(axes, colour):
    return [bar.get_width() for bar in axes.patches if np.allclose(bar.get_facecolor()[:3], colour)]


def test_one_space_draws_each_number_once_in_the_colour_of_its_domain(spaces):
    apart, reads = figures.one_space(spaces).axes
    assert lengths(apart, figures.GREY) == [1.9, 0.4]
    assert lengths(reads, figures.SOURCE) == [0.6, 0.8] and lengths(reads, figures.TARGET) == [
        0.2,
        0.7,
    ]
    assert [text.get_text() for text in apart.texts] == ["1.90", "0.40"]
    assert [label.get_text() for label in apart.get_yticklabels()] == [
        "pictures",
        "words",
    ] and apart.yaxis_inverted()


def test_one_space_says_which_domain_is_which_how_many_and_what_guessing_gives(spaces):
    figure = figures.one_space(spaces)
    apart, reads = figure.axes
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert (
        legend[0].startswith("old, the domain it learnt on (n = 25)")
        and legend[1].startswith("new, the other domain (n = 15)")
        and legend[2] == "guessing"
    )
    assert (
        "n = 40" in apart.get_xlabel()
        and "old and new" in apart.get_title(loc="left")
        and "old alone" in reads.get_title(loc="left")
    )
    assert any(list(line.get_xdata()) == [1 / 4, 1 / 4] for line in reads.lines)


def test_one_space_bears_one_row_and_an_interval_that_misses_its_value(spaces):
    spaces["pictures"]["gap"]["a_distance_interval"] = [1.95, 2.0]
    figure = figures.one_space({"pictures": spaces["pictures"]})
    assert figures.png(figure).startswith(b"\x89PNG") and figures.png(figure) == figures.png(figure)


# --------------------------------------- what perception sees, and where it is drawn (chapter 03)


def scene_with(domain: str, cause: str, name: str) -> world.Scene:
    """Return the first test scene in which this domain shows this event or response."""
    scenes = (world.sample_scene("test", 0, index, domain) for index in range(5000))
    return next(scene for scene in scenes if getattr(world.shown(scene, domain), cause) == name)


def region_of(domain: str, cause: str, name: str, **how) -> np.ndarray:
    return regions.drawn_region(scene_with(domain, cause, name), domain, cause, **how)


def test_region_is_where_the_cause_is_drawn():
    spider = region_of("photos", "event", "spider")
    assert spider.shape == (64, 64) and spider.dtype == bool
    assert (
        0.01 < spider.mean() < 0.3 and spider[:32].sum() > 10 * spider[32:].sum()
    )  # hanging on its thread
    grave = region_of("photos", "event", "grave")
    assert (
        0.01 < grave.mean() < 0.3 and not grave[:16].any() and not grave[24:40, 28:36].any()
    )  # on the ground, beside the subject
    tears = region_of("stickers", "response", "tears")
    assert (
        tears.any() and not tears[:24].any() and 20 < np.nonzero(tears)[1].mean() < 44
    )  # on both cheeks
    green = region_of("stickers", "response", "green")
    assert green.mean() > 0.1 and green[24:40, 24:40].mean() > 0.5  # the face itself
    scribble = region_of("stickers", "response", "scribble")
    assert scribble.any() and not scribble[24:].any()  # above the head


def test_region_has_the_size_it_is_asked_for():
    small, large = (region_of("stickers", "response", "green", size=size) for size in (64, 128))
    assert large.shape == (128, 128) and large.mean() == pytest.approx(small.mean(), rel=0.1)


@pytest.mark.parametrize(
    "domain, cause, name",
    [
        ("photos", "event", "grave"),
        ("sketches", "event", "snake"),
        ("paintings", "event", "gift"),
        ("photos", "response", "tears"),
        ("stickers", "response", "hearts"),
        ("sketches", "response", "tears"),
        ("paintings", "response", "sweat"),
    ],
)
def test_drawing_without_a_cause_keeps_the_rest(domain, cause, name):
    """Most pixels are the same to the last bit.

    Subject, clutter, light and grain stay in place. A scene without the cause is another picture.
    """
    scene = scene_with(domain, cause, name)
    whole, rest = (
        np.asarray(world.render(scene, domain, without=without), int) for without in (None, cause)
    )
    changed, region = (whole != rest).any(-1), regions.drawn_region(scene, domain, cause)
    assert region.any() and changed.mean() < 0.35 and np.abs(whole - rest)[~region].max() <= 24
    if (domain, cause) == (
        "photos",
        "event",
    ):  # without a visible event, a photo leaves no room for one
        other = np.asarray(world.render(world.intervene(scene, event=None), domain), int)
        assert (whole != other).any(-1).mean() > 2 * changed.mean()


def test_what_a_domain_hides_has_no_region():
    scene = next(
        scene
        for scene in (world.sample_scene("test", 0, i, "stickers") for i in range(100))
        if 0.1 < scene.chance.uniform["show_event"] < 0.8 and scene.event == "grave"
    )
    assert not regions.drawn_region(scene, "stickers", "event").any()
    assert regions.drawn_region(
        scene, "stickers", "event", dials=Dials(event_gap=0)
    ).any()  # a sticker that shows as much as a photo


def test_drawn_words_are_those_the_caption_says_and_the_picture_shows():
    index = range(40)
    scenes = [world.sample_scene("test", 0, i, "photos") for i in index]
    pictures = Pictures(
        "photos",
        "test",
        [Path(f"{i:06d}.png") for i in index],
        np.full(len(index), -1),
        [""] * len(index),
    )
    captions = [world.caption(scene, "photos") for scene in scenes]
    found = regions.drawn_words(
        pictures, captions, [parse_triplets(caption) for caption in captions]
    )
    assert {entry["cause"] for entry in found} == {"event", "response"} and len(found) > 20
    for entry in found:
        shown = world.shown(scenes[entry["row"]], "photos")
        table = {"event": causes.EVENTS, "response": causes.RESPONSES}[entry["cause"]]
        assert (
            set(entry["words"]) <= set(table[getattr(shown, entry["cause"])][0].split())
            and 0 < entry["region"].mean() <= 0.5
        )
        assert getattr(shown, entry["cause"]) not in WIDE and all(
            captions[entry["row"]].split().count(word) == 1 for word in entry["words"]
        )
    assert not {"a", "of", "beside", "with"} & {word for entry in found for word in entry["words"]}
    said_nothing = ["a photo of a cat ."] * len(index)
    assert (
        regions.drawn_words(
            pictures, said_nothing, [parse_triplets(caption) for caption in said_nothing]
        )
        == []
    )


def test_word_maps_tint_by_the_words_own_mean():
    """Even attention leaves the picture grey, whatever its level.

    A hot place is red, a cold one blue.
    """
    image, hot = np.full((3, 64, 64), 128, np.uint8), np.ones((8, 8))
    hot[0, 0], hot[7, 7] = 2, 0
    region = np.zeros((64, 64), bool)
    region[:8, :8] = True
    rows = [
        {
            "image": image,
            "title": "one",
            "heats": {"flat": np.full((8, 8), 0.01), "hot": hot},
            "regions": {"hot": region},
        },
        {
            "image": image,
            "title": "two",
            "heats": {"flat": np.full((4, 4), 0.5)},
            "caption": "a caption",
        },
    ]
    figure = figures.word_maps(rows)
    panels = {
        (row, axes.get_title()): axes
        for row, axes in zip((0, 0, 0, 1, 1, 1), figure.axes[:6], strict=True)
    }
    flat, warm = (panels[0, title].images[0].get_array() for title in ("“flat”", "“hot”"))
    assert np.ptp(flat, axis=-1).max() < 0.02 and np.allclose(
        flat, panels[1, "“flat”"].images[0].get_array()
    )
    assert warm[4, 4, 0] > warm[4, 4, 2] + 0.2 and warm[60, 60, 2] > warm[60, 60, 0] + 0.2
    assert (
        len(panels[0, "“hot”"].collections) == 1 and not panels[0, "“flat”"].collections
    )  # the outline
    assert figures.png(figure).startswith(b"\x89PNG")


def test_change_boxes_show_medians_and_whole_whiskers():
    rng = np.random.default_rng(0)
    changes = {
        name: {"words": rng.normal(0.4, 0.01, (50, 2)), "pixels": rng.normal(high, 0.01, (50, 2))}
        for name, high in (("photos", 0.8), ("stickers", 3.0))
    }
    figure = figures.change_boxes(changes, ["coarse", "v"])
    photos, stickers = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "photos (n = 50)",
        "stickers (n = 50)",
    ]
    assert [tick.get_text() for tick in photos.get_xticklabels()] == ["coarse", "v"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["words", "pixels"]
    assert (
        photos.get_ylim() == stickers.get_ylim()
        and stickers.get_ylim()[0] == 0
        and stickers.get_ylim()[1] > 3
    )
    medians = [
        np.median(line.get_ydata())
        for line in photos.lines
        if len(set(line.get_ydata())) == 1 and len(line.get_ydata()) == 2
    ]
    assert any(
        value == pytest.approx(np.median(changes["photos"]["pixels"][:, 0])) for value in medians
    )


def test_focus_points_count_pictures_and_mark_means():
    focuses = [
        {"group": "stickers: responses", "here": 1.2 + 0.1 * (i % 2), "there": 0.9}
        for i in range(10)
    ] + [{"group": "photos: events", "here": 1.0, "there": 1.0}]
    (axes,) = figures.focus_points(focuses).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [
        "photos: events\n(n = 1)",
        "stickers: responses\n(n = 10)",
    ]
    marked = [y for line in axes.lines for y in np.atleast_1d(line.get_ydata())]
    assert any(y == pytest.approx(1.25) for y in marked) and any(
        y == pytest.approx(0.9) for y in marked
    )


# ---------------------------------------------------------------- counterfactuals (chapter 04)

CLASSES = ("joy", "rage", "awe")


def widths(axes):
    return [round(float(bar.get_width()), 6) for container in axes.containers for bar in container]


def tall(axes):
    return [round(float(bar.get_height()), 6) for container in axes.containers for bar in container]


def coloured(axes, colour):
    """Return the indices of the bars with this colour."""
    return [
        i
        for i, bar in enumerate(bar for container in axes.containers for bar in container)
        if np.allclose(bar.get_facecolor()[:3], colour)
    ]


def test_readings_put_every_prompt_before_the_caption_and_colour_the_best_fit():
    card = {
        "image": np.zeros((3, 8, 8), np.uint8),
        "title": "one",
        "caption": "a cup , for $ 5 .",
        "similarities": [-0.5, 0.25, 0.0],
        "probs": [0.1, 0.7, 0.2],
    }
    figure = figures.readings(
        [{**card, "domain": "photos"}, {**card, "domain": "noto"}],
        ["A joy photo of", "A rage photo of", "A awe photo of"],
    )
    (_, texts, fits), (_, _, other) = np.reshape(figure.axes, (2, 3))
    assert [text.get_text() for text in texts.texts][
        1
    ] == r"$\bf{A\ rage\ photo\ of}$ a cup, for \$ 5"
    assert widths(fits) == [0.1, 0.7, 0.2] and fits.yaxis_inverted()
    assert (
        coloured(fits, figures.SOURCE) == [1]
        and coloured(other, figures.TARGET) == [1]
        and coloured(other, figures.GREY) == [0, 2]
    )
    assert [text.get_text() for text in fits.texts][:2] == ["10%   cos −0.50", "70%   cos 0.25"]
    assert figures.png(figure).startswith(b"\x89PNG")


def test_readings_lose_no_word_of_a_long_caption():
    long = "a sticker of a cat " + "with a frown and closed eyes , " * 4
    card = {
        "image": np.zeros((3, 8, 8), np.uint8),
        "domain": "stickers",
        "title": "",
        "caption": long,
        "similarities": [0],
        "probs": [1],
    }
    (text,) = figures.readings([card], ["A joy photo of"]).axes[1].texts
    assert (
        " ".join(text.get_text().split()).endswith(long.strip().replace(" ,", ","))
        and text.get_text().count("\n") >= 2
    )


def test_the_whole_method_is_a_row_from_picture_to_answer():
    card = {
        "image": np.zeros((3, 8, 8), np.uint8),
        "caption": "a dog with a big smile .",
        "triplets": [("dog", "has", "big smile")],
        "word": "smile",
        "attention": np.ones((8, 8)),
        "similarities": [-0.5, -0.25, -0.4],
        "probs": [0.1, 0.2, 0.7],
        "predicted": "rage",
    }
    figure = whole_method({"photos": card, "stickers": card}, ["joy", "awe", "rage"])
    picture, text, map_, asked, answer = figure.axes[5:]
    assert [axes.get_title(loc="left") for axes in (picture, map_, answer)] == [
        "stickers",
        "“smile”",
        "answer: rage",
    ]
    assert text.texts[0].get_text() == "a dog with a big smile\n\n(dog, has, big smile)"
    for axes, values, best in ((asked, [-0.5, -0.25, -0.4], 1), (answer, [0.1, 0.2, 0.7], 2)):
        dots = axes.collections[1]
        assert (
            np.allclose(dots.get_offsets(), list(zip(values, range(3), strict=True)))
            and axes.yaxis_inverted()
        )
        assert [
            i
            for i, colour in enumerate(dots.get_facecolors())
            if np.allclose(colour[:3], figures.TARGET)
        ] == [best]
    assert (
        asked.get_xlim()[0] < -0.5 and asked.get_xlim()[1] > -0.25
    )  # every dot is visible, none at the edge
    assert figures.png(figure).startswith(b"\x89PNG")


def test_redrawn_shades_what_was_set_and_colours_what_was_answered():
    probs = np.array([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.0, 0.1, 0.9]])
    row = {
        "images": np.zeros((3, 3, 8, 8), np.uint8),
        "captions": ["a photo of a cat ."] * 3,
        "probs": probs,
    }
    figure = figures.redrawn({"photos": row, "stickers": row}, CLASSES)
    pictures, answers, _, below = np.reshape(figure.axes, (4, 3))
    assert [axes.get_title(loc="center") for axes in pictures] == [
        "do(joy)",
        "do(rage)",
        "do(awe)",
    ] and pictures[0].get_ylabel() == "photos"
    assert [axes.texts[0].get_text() for axes in pictures] == ["a photo of a cat"] * 3
    for place, (axes, other) in enumerate(zip(answers, below, strict=True)):
        assert widths(axes) == probs[place].tolist()
        assert (
            coloured(axes, figures.SOURCE)
            == coloured(other, figures.TARGET)
            == [probs[place].argmax()]
        )
        (shade,) = [patch for patch in axes.patches if patch not in axes.containers[0]]
        assert shade.get_y() == place - 0.5 and shade.get_height() == 1


def test_followed_counts_pairs_and_the_diagonal():
    was_set, answered = np.array([0, 0, 0, 0, 1, 1, 2, 2]), np.array([0, 0, 0, 1, 2, 2, 0, 2])
    pairs = {
        "follows": {"set": was_set, "answered": answered},
        "itself": {"a": was_set, "b": was_set},
    }
    axes, itself = figures.followed(pairs, CLASSES).axes
    assert (
        axes.get_title(loc="left") == "follows\n50% of 8 on the diagonal"
        and itself.get_title(loc="left") == "itself\n100% of 8 on the diagonal"
    )
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("set", "answered")
    assert [int(text.get_text()) for text in axes.texts] == [3, 1, 0, 0, 0, 2, 1, 0, 1]
    assert sorted(patch.get_xy() for patch in axes.patches) == [(0, 0), (1, 1), (2, 2)]


def test_believed_marks_the_point_in_use_on_both_curves():
    curves = {
        "one": [
            {"coverage": 0.0, "accuracy": None},
            {"coverage": 0.5, "accuracy": 0.9},
            {"coverage": 1.0, "accuracy": 0.7},
        ],
        "two": [{"coverage": 0.5, "accuracy": 0.8}, {"coverage": 1.0, "accuracy": 0.7}],
    }
    shares = {"truth": [0.2, 0.3, 0.5], "one": [0.1, 0.3, 0.6], "two": [0.4, 0.3, 0.3]}
    curve, mix = figures.believed(curves, 0.75, {0.9: 0.6}, shares, CLASSES).axes
    drawn = [np.column_stack(line.get_data()).round(6).tolist() for line in curve.lines]
    assert drawn == [
        [[0.5, 0.9], [1, 0.7]],
        [[0.75, 0.8]],
        [[0.6, 0.86]],
        [[0.5, 0.8], [1, 0.7]],
        [[0.75, 0.75]],
    ]
    assert [text.get_text() for text in curve.texts] == ["≥ 0.9"]
    assert tall(mix) == [value for values in shares.values() for value in values]
    assert [
        len(coloured(mix, colour)) for colour in (figures.GREY, figures.COLOURS[2], figures.TARGET)
    ] == [3, 3, 3]


def test_reliability_shows_bins_counts_and_the_error():
    entry = {
        "middle": [0.45, 0.95],
        "confidence": [0.42, 0.96],
        "accuracy": [0.5, 0.9],
        "count": [2, 30],
        "error": 0.0625,
    }
    figure = figures.reliability({"source": entry, "target": {**entry, "error": 0.5}})
    fit, other, many, _ = figure.axes
    assert (
        np.column_stack(fit.lines[1].get_data()).tolist() == [[0.42, 0.5], [0.96, 0.9]]
        and fit.lines[1].get_color() == figures.SOURCE
    )
    assert tall(many) == [2, 30] and [text.get_text() for text in many.texts] == ["2", "30"]
    assert (
        fit.get_title(loc="left").endswith("0.062")
        and other.get_title(loc="left").endswith("0.500")
        and other.lines[1].get_color() == figures.TARGET
    )


# ---------------------------------------------------------------- the world (book/world)


def test_tiles_keep_every_picture_in_its_place():
    red, blue = (
        np.stack(
            [np.full((3, 8, 8), 255, np.uint8) * np.array(colour, np.uint8)[:, None, None]] * 3
        )
        for colour in ((1, 0, 0), (0, 0, 1))
    )
    figure = figures.tiles({"warm": red, "cold": blue}, ["a", "b", "c"])
    (axes,) = figure.axes
    shown = np.asarray(axes.images[0].get_array())
    assert (
        shown.shape == (2 * 12, 3 * 12, 3)
        and (shown[6, 6] == (255, 0, 0)).all()
        and (shown[18, 30] == (0, 0, 255)).all()
        and (shown[0, 0] == 255).all()
    )
    assert [label.get_text() for label in axes.get_yticklabels()] == ["warm", "cold"] and [
        label.get_text() for label in axes.get_xticklabels()
    ] == ["a", "b", "c"]


def test_evidence_prints_shares_in_per_cent_and_no_zeros():
    figure = figures.evidence(
        {"tears": [0.25, 0.75], "hearts": [1.0, 0.0]}, ["happy", "sad"], "signs"
    )
    assert [text.get_text() for text in figure.axes[0].texts] == ["100", "", "25", "75"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["hearts", "tears"]


def test_frozen_draws_every_seed_and_the_limits():
    figure = figures.frozen(
        {
            "captions": {"photos": [0.7], "stickers": [0.6]},
            "a CNN": {"photos": [0.4, 0.5], "stickers": [0.1, 0.2]},
        },
        {"below": 0.85, "reach": 0.93},
    )
    (axes,) = figure.axes
    drawn = sorted(float(x) for points in axes.collections for x in points.get_offsets()[:, 0])
    assert drawn == pytest.approx(sorted([0.7, 0.7, 0.6, 0.6, 0.4, 0.5, 0.45, 0.1, 0.2, 0.15]))
    assert [line.get_xdata()[0] for line in axes.lines] == [0.85, 0.93] and [
        label.get_text() for label in axes.get_yticklabels()
    ] == ["photos", "stickers"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["captions", "a CNN"]


# ---------------------------------------------------------------- gains


def test_gain_points_stand_where_the_numbers_are():
    figure = figures.gain_points(
        {"source_only": [0.01, 0.03], "linear_probe": [-0.2, -0.1]},
        {"source_only": (-0.01, 0.05), "linear_probe": (-0.3, 0.0)},
        {"source_only": 0.05},
    )
    (axes,) = figure.axes
    drawn = {
        (line.get_marker(), round(float(np.mean(line.get_ydata())))): np.atleast_1d(
            line.get_xdata()
        )
        for line in axes.lines[1:]
    }  # the first line marks zero
    assert drawn["s", 0] == pytest.approx(2.0) and drawn["s", 1] == pytest.approx(-15.0)
    assert drawn["o", 0] == pytest.approx([1.0, 3.0]) and drawn["None", 1] == pytest.approx(
        [-30.0, 0.0]
    )
    assert drawn["|", 0] == pytest.approx(5.0) and ("|", 1) not in drawn
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "over source only",
        "over linear probe",
    ]


def test_dial_curves_have_a_panel_a_dial_and_hide_the_rest():
    curves = {
        "style_gap": {0.0: {"kcdp": 0.8, "adabn": 0.9}, 1.0: {"kcdp": 0.5, "adabn": 0.9}},
        "event_gap": {0.5: {"kcdp": 0.7, "adabn": 0.8}},
    }
    style, event, empty = figures.dial_curves(curves, ("kcdp", "adabn")).axes
    assert style.lines[0].get_ydata() == pytest.approx([0.8, 0.5]) and event.lines[
        1
    ].get_ydata() == pytest.approx([0.8])
    assert (style.get_title(loc="left"), event.axison, empty.axison) == ("style gap", True, False)


def test_stages_lie_end_to_end_and_end_at_the_step():
    steps = {
        "released": {"vae": 2.0, "forward": 3.0, "backward": 5.0, "step": 10.0},
        "paper": {"forward": 2.0, "backward": 1.0, "step": 3.0},
    }
    figure = figures.stages(steps)
    ends = {}
    for bar in figure.axes[0].patches:
        row = round(bar.get_y() + bar.get_height() / 2)
        ends[row] = max(ends.get(row, 0), bar.get_x() + bar.get_width())
    assert ends == {0: 10.0, 1: 3.0} and [text.get_text() for text in figure.legends[0].texts] == [
        "vae",
        "forward",
        "backward",
    ]


# ---------------------------------------------------------------- a fair comparison (chapter 06)


def test_heat_maps_hold_every_pair_on_one_scale():
    domains = ["photos", "stickers"]
    tables = {
        name: pandas.DataFrame(values, domains, [*domains, "noto"]).reindex(
            [*domains, "art-micah"], columns=[*domains, "noto", "art-micah"]
        )
        for name, values in (
            ("one", [[np.nan, 0.5, 0.25], [0.75, np.nan, 1.0]]),
            ("another", [[np.nan, 0.6, 0.6], [0.6, np.nan, 0.6]]),
        )
    }
    one, another = figures.heat_maps(tables, "macro-F1").axes
    assert [text.get_text() for text in one.texts] == ["0.50", "0.25", "0.75", "1.00"] and [
        text.get_text() for text in another.texts
    ] == ["0.60"] * 4
    scale = (0.25, 0.25 + 0.75 * figures.PALER)
    assert one.collections[0].get_clim() == another.collections[0].get_clim() == scale
    assert {text.get_color() for text in one.texts} == {figures.INK}, "dark on every cell"
    assert [label.get_text() for label in one.get_yticklabels()] == domains and (
        one.get_ylabel(),
        another.get_xlabel(),
    ) == ("source", "target")
    assert [label.get_text() for label in one.get_xticklabels()] == [*domains, "noto"]


def test_scores_by_pictures_have_a_line_a_method_and_a_dot_a_seed():
    (axes,) = figures.by_pictures(
        {"KCDP": {10: [0.2, 0.4], 100: [0.6, 0.8]}, "MCD": {10: [0.1], 100: [0.3]}},
        {"zero-shot": [0.5, 0.7]},
    ).axes
    lines = [line for line in axes.lines if line.get_label() in ("KCDP", "MCD", "zero-shot")]
    assert [line.get_ydata() for line in lines[:2]] == [
        pytest.approx([0.3, 0.7]),
        pytest.approx([0.1, 0.3]),
    ] and set(lines[2].get_ydata()) == {0.6}
    assert sorted(
        y for line in axes.lines if line.get_marker() == "o" for y in line.get_ydata()
    ) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.6, 0.8])
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "10",
        "100",
    ] and axes.get_xscale() == "log"


def test_planes_show_every_picture_by_domain_and_by_class():
    xy, labels = np.arange(16.0).reshape(8, 2), np.array([0, 1, 0, 1, 0, 0, 1, 1])
    figure = figures.planes(
        {"before": xy, "after": -xy}, ["photos"] * 5 + ["stickers"] * 3, labels, ("happy", "fear")
    )
    above, beside, below, _ = figure.axes
    assert [len(dots.get_offsets()) for dots in above.collections] == [5, 3] and np.array_equal(
        above.collections[1].get_offsets(), xy[5:]
    )
    assert np.array_equal(beside.collections[0].get_offsets(), -xy[:5]) and [
        text.get_text() for text in beside.get_legend().texts
    ] == ["photos", "stickers"]
    assert [dots.get_offsets().tolist() for dots in below.collections] == [
        xy[rows].tolist() for rows in ([0, 2, 4], [5], [1, 3], [6, 7])
    ]


# ---------------------------------------------------------------- users' texts


@pytest.mark.parametrize(
    "text, shown",
    [
        ("my_pictures", "my_pictures"),
        ("a$x^2$", r"a\$x^2\$"),
        ("two\nlines\t\x02", "two lines"),
        ("图 🙂 \udcff", "□ □ □"),
        (r"\frac{1}{2} <b>", r"\frac{1}{2} <b>"),
        ("l" * 200, "l" * 31 + "…"),
    ],
)
def test_a_users_name_is_plain_text(text, shown):
    assert plain_text(text, 32) == shown


def test_texts_of_users_are_no_markup_in_any_figure():
    """Whatever they contain, nothing causes a warning or is set as mathematics."""
    wild = "$\\frac{$ _^ {x} <b> & # % ~ \x02 \n 图 🙂 \udcff"
    name = plain_text(wild, 32)
    card = {
        "image": np.zeros((3, 8, 8), np.uint8),
        "attention": np.zeros((8, 8)),
        "caption": wild + " ,",
        "word": wild,
        "triplets": [(wild, wild, wild)],
        "predicted": "joy",
        "probability": 0.5,
        "label": "joy",
        "similarities": [0.1, 0.2],
        "probs": [0.5, 0.5],
    }
    scores = {"kcdp": {"macro_f1": 0.5, "macro_f1_interval": [0.4, 0.6]}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in (
            whole_method({name: card}, ["joy", "rage"]),
            prediction_sheet([card]),
            confusion({f"{name}, test": [[1, 0], [0, 1]]}, ["joy", "rage"]),
            bars(scores, title=f"{name} → {name}"),
            figures.contact_sheet(np.zeros((1, 3, 8, 8), np.uint8), [f"joy: {wild}"]),
        ):
            assert figures.png(figure).startswith(b"\x89PNG")
            texts = [text for text in figure.findobj(Text) if "frac" in text.get_text()]
            assert texts and not any(is_math_text(text.get_text()) for text in texts)


def test_sides_of_one_name_are_called_by_their_roles():
    assert side_titles("photos", "stickers") == ("photos", "stickers")
    assert side_titles("images", "images") == ("source: images", "target: images")
    assert side_titles("a\x02", "a") == ("source: a", "target: a")
    assert side_titles("l" * 99 + "a", "l" * 99 + "b")[0].startswith("source: lll")
