"""The second built-in world (chapter "The world").

Its causal model, its dials, and that a seed gives the same bytes on every machine.
"""

import json
import tracemalloc
from dataclasses import fields, replace

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from kcdp_lib import paths, world
from kcdp_lib.errors import KCDPError
from kcdp_lib.world import BENCHMARK, EIGHT, SIX, Dials, causes, events, responses, store, subjects

CLOSED = Dials(style_gap=0.0, expression_gap=0.0, event_gap=0.0, prior_shift=0.0)


def many(domain="photos", n=3000, dials=Dials(), split="test"):
    return [world.sample_scene(split, 3, i, domain, dials) for i in range(n)]


@pytest.fixture(scope="module")
def scenes():
    return {domain: many(domain) for domain in BENCHMARK}


# ---------------------------------------------------------------- one picture, one number


def test_a_picture_is_a_function_of_its_index():
    first, again, other = (
        world.render(world.sample_scene("train", 0, i), "photos").tobytes() for i in (5, 5, 6)
    )
    assert first == again != other


@pytest.mark.parametrize("domain", BENCHMARK)
def test_the_number_of_workers_does_not_change_a_byte(tmp_path, monkeypatch, domain):
    folders = []
    for workers in (1, 2):
        monkeypatch.setattr(paths, "CACHE", tmp_path / str(workers))
        folders.append(world.build(domain, "train", 40, seed=5, workers=workers))
    names = sorted(path.name for path in folders[0].iterdir())
    assert len(names) == 41 and names == sorted(path.name for path in folders[1].iterdir())
    assert all(
        (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes() for name in names
    )


def test_no_scene_is_shared_between_splits_domains_or_seeds():
    seeds = [
        causes.chance(split, seed, i, domain).seed
        for split in causes.SPLITS
        for seed in (0, 1)
        for domain in causes.DOMAINS
        for i in range(200)
    ]
    assert (
        len(seeds) - len(set(seeds)) <= 2
    )  # chance collisions of 31-bit numbers, not shared scenes


def test_a_longer_split_begins_with_the_shorter_one(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    short, long = (world.build("stickers", "test", count) for count in (10, 20))
    assert (long / "metadata.jsonl").read_text().startswith((short / "metadata.jsonl").read_text())
    assert all(
        (short / f"{i:06d}.png").read_bytes() == (long / f"{i:06d}.png").read_bytes()
        for i in range(10)
    )


def test_drawing_more_pictures_takes_no_more_memory(tmp_path, monkeypatch):
    """Measure the parent's peak with a drawing that costs nothing.

    This is what is kept of a picture, not what its drawing needs.
    """
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    monkeypatch.setattr(store, "draw_file", lambda index, **_: "x" * 500)
    peaks = []
    for count in (2_000, 100_000):
        tracemalloc.start()
        world.build("photos", "train", count, seed=count, workers=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


@pytest.mark.parametrize("size", (32, 64, 128, 512))
@pytest.mark.parametrize("domain", BENCHMARK)
def test_a_picture_looks_alike_at_every_size(domain, size):
    """Reduced to 32 pixels, sizes differ little, so no length is in pixels."""
    scene = many(domain, 4)[3]
    small, other = (
        np.asarray(world.render(scene, domain, s).resize((32, 32)), float) for s in (64, size)
    )
    assert np.abs(small - other).mean() < 12


# ------------------------------------------------------ emotions cause what is seen, looks do not


def test_looks_place_and_light_are_independent_of_emotions(scenes):
    """No subject, look, place or light is tied to a class, in any domain.

    Looks are skin, hair, style, clothes and accessory (chi-squared, 1% after Bonferroni).
    """
    values = {
        "subject": lambda s: s.looks.subject,
        "place": lambda s: s.place,
        "light": lambda s: s.light,
        **{
            name: (lambda s, name=name: int(4 * getattr(s.looks, name)))
            for name in ("skin", "hair", "style", "cloth", "accessory")
        },
    }
    for domain in BENCHMARK:
        for name, value in values.items():
            kinds = sorted({value(s) for s in scenes[domain]})
            table = np.array(
                [
                    [
                        sum(value(s) == kind and s.emotion == emotion for s in scenes[domain])
                        for kind in kinds
                    ]
                    for emotion in EIGHT
                ]
            )
            assert chi2_contingency(table[table.sum(1) > 50]).pvalue > 0.01 / (
                len(values) * len(BENCHMARK)
            ), (domain, name)


def test_there_are_several_ways_to_show_each_emotion():
    assert causes.FACES.keys() == set(EIGHT)
    for emotion in EIGHT:
        assert (
            len(causes.FACES[emotion]) >= 3
            and len(causes.given(causes.EVENTS, emotion)) >= 3
            and len(causes.given(causes.RESPONSES, emotion)) >= 3
        )
        assert (
            sum(causes.given(causes.RESPONSES, emotion).values()) <= 1
        )  # the rest is "no response"


def test_evidence_is_shared_between_emotions():
    """Nearly all responses and most events occur with several classes, so none gives it away."""

    def classes(weights):
        return len({causes.label_of(emotion) for emotion in weights})

    assert np.mean([classes(weights) > 1 for _, weights in causes.RESPONSES.values()]) > 0.9
    assert np.mean([classes(weights) > 1 for _, weights in causes.EVENTS.values()]) > 0.8


def test_everything_named_is_drawn():
    assert set(responses.DRAW) == set(causes.RESPONSES)
    assert set(events.WIDE) <= set(causes.EVENTS)
    assert set(subjects.HUMANS) == set(causes.SUBJECTS[:6]) and set(subjects.ANIMALS) <= set(
        causes.SUBJECTS[6:]
    )
    scene = world.intervene(many(n=1)[0], response=None)
    for event in causes.EVENTS:
        shown = world.intervene(
            replace(
                scene,
                chance=scene.chance._replace(uniform=scene.chance.uniform | {"show_event": 0.0}),
            ),
            event=event,
        )
        assert np.any(
            np.asarray(world.render(shown, "photos"))
            != np.asarray(world.render(shown, "photos", without="event"))
        ), event


@pytest.mark.parametrize("domain", BENCHMARK)
def test_every_subject_event_and_response_has_a_picture_of_its_own(domain):
    scene = many(domain, 1)[0]
    scene = replace(
        scene,
        event=None,
        response=None,
        chance=scene.chance._replace(
            uniform=scene.chance.uniform | {"show_event": 0.0, "show_response": 0.0}
        ),
    )
    changed = [
        replace(scene, looks=replace(scene.looks, subject=subject)) for subject in causes.SUBJECTS
    ]
    changed += [
        replace(scene, **{cause: name})
        for cause, table in (("event", causes.EVENTS), ("response", causes.RESPONSES))
        for name in table
    ]
    pictures = [world.render(one, domain).tobytes() for one in changed]
    assert (
        len(set(pictures))
        == len(pictures)
        == len(causes.SUBJECTS) + len(causes.EVENTS) + len(causes.RESPONSES)
    )


# ---------------------------------------------------------------- taxonomies


def test_the_six_classes_are_unions_of_the_eight():
    assert {causes.label_of(emotion) for emotion in EIGHT} == set(SIX) and {
        causes.label_of(emotion, "eight") for emotion in EIGHT
    } == set(EIGHT)
    assert (
        causes.label_of("awe") == causes.label_of("excitement") == "surprise"
        and causes.label_of("amusement") == causes.label_of("contentment") == "happy"
    )


def test_a_thousand_and_two_hundred_stickers_hold_forty_of_every_class():
    labels = [
        causes.label_of(world.sample_scene("test", 0, i, "stickers").emotion) for i in range(1200)
    ]
    assert min(labels.count(name) for name in SIX) >= 40


# ---------------------------------------------------------------- dials


def test_with_every_dial_at_0_a_domain_is_photos():
    for index in range(12):
        noise = causes.chance("test", 3, index)
        photo = causes.scene_of(noise, "photos")
        for domain in BENCHMARK[1:]:
            scene = causes.scene_of(noise, domain, CLOSED)
            assert scene == photo and world.caption(scene, domain, CLOSED) == world.caption(
                photo, "photos"
            )
            assert (
                world.render(scene, domain, 64, CLOSED).tobytes()
                == world.render(photo, "photos").tobytes()
            )


def differing(dial, a, b, domain="stickers"):
    """Return the names of the parts that one dial changes in 300 scenes."""
    near, far = (replace(CLOSED, **{dial: value}) for value in (a, b))
    found = set()
    for index in range(300):
        noise = causes.chance("test", 4, index)
        one, two = causes.scene_of(noise, domain, near), causes.scene_of(noise, domain, far)
        found |= {
            f"scene.{f.name}" for f in fields(one) if getattr(one, f.name) != getattr(two, f.name)
        }
        seen = world.shown(one, domain, near), world.shown(one, domain, far)
        found |= {
            f"shown.{f.name}"
            for f in fields(seen[0])
            if getattr(seen[0], f.name) != getattr(seen[1], f.name)
        }
    scene = causes.scene_of(causes.chance("test", 4, 0), domain, near)
    return found | (
        {"picture"}
        if world.render(scene, domain, 64, near).tobytes()
        != world.render(scene, domain, 64, far).tobytes()
        else set()
    )


def test_each_dial_turns_one_thing():
    assert differing("style_gap", 0.0, 0.5) == {"picture"}
    assert differing("expression_gap", 0.0, 1.0) == {
        "shown.face",
        "shown.brows",
        "scene.looks",
        "picture",
    }
    assert differing("event_gap", 0.0, 1.0) - {"picture"} == {"shown.event", "shown.response"}
    assert differing("prior_shift", 0.0, 1.0) >= {"scene.emotion", "scene.event", "scene.face"}
    assert "scene.looks" not in differing("prior_shift", 0.0, 1.0)


@pytest.mark.parametrize(
    "dial, value",
    (
        ("expression_gap", lambda s, d: abs(world.shown(s, "stickers", d).face.curve)),
        ("event_gap", lambda s, d: world.shown(s, "stickers", d).response is not None),
    ),
)
def test_a_dial_turns_steadily(dial, value):
    means = [
        np.mean([value(s, dials) for s in many("stickers", 1500, dials)])
        for dials in (replace(CLOSED, **{dial: step}) for step in (0.0, 0.5, 1.0))
    ]
    assert means[0] < means[1] < means[2]


def test_the_trap_ties_light_to_class_in_the_source_alone():
    def dependent(domain, spurious):
        dials = Dials(spurious=spurious).felt_by(domain)
        found = many(domain, 2000, dials)
        return (
            chi2_contingency(
                np.array(
                    [
                        [
                            sum(
                                s.light == light and causes.label_of(s.emotion) == name
                                for s in found
                            )
                            for light in causes.LIGHTS
                        ]
                        for name in SIX
                    ]
                )
            ).pvalue
            < 1e-6
        )

    assert (
        dependent("photos", 0.5) and not dependent("photos", 0.0) and not dependent("stickers", 1.0)
    )


def test_the_source_does_not_feel_the_targets_dials(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    assert world.build("photos", "train", 4) == world.build("photos", "train", 4, dials=CLOSED)
    assert world.build("stickers", "train", 4) != world.build("stickers", "train", 4, dials=CLOSED)


def test_domains_show_what_they_say(scenes):
    """Photos carry the event and a subtle face, stickers the response and an exaggerated one.

    Sketches and paintings lie between.
    """

    def seen(domain):
        views = [world.shown(s, domain) for s in scenes[domain]]
        return (
            np.mean([v.event is not None for v in views]),
            np.mean([v.response is not None for v in views]),
            np.mean([abs(v.face.curve) for v in views]),
        )

    photo, sticker, sketch, painting = map(seen, BENCHMARK)
    assert (
        photo[0] > 0.85
        and sticker[0] < 0.12
        and photo[1] < 0.15 < 0.45 < sticker[1]
        and sticker[2] > 1.5 * photo[2]
    )
    for between in (sketch, painting):
        assert (
            sticker[0] < between[0] < photo[0]
            and photo[1] < between[1] < sticker[1]
            and photo[2] < between[2] < sticker[2]
        )


def test_dials_are_read_from_text():
    assert world.read_dials("") == Dials() and world.read_dials(
        "style_gap=0.5, spurious=1"
    ) == Dials(style_gap=0.5, spurious=1.0)
    for text, named in (
        ("style=1", "style_gap"),
        ("style_gap=2", "from 0 to 1"),
        ("style_gap=much", "from 0 to 1"),
        ("style_gap=nan", "from 0 to 1"),
    ):
        with pytest.raises(KCDPError, match=named):
            world.read_dials(text)


def test_unknown_names_get_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    for call, named in (
        (lambda: world.build("comics", "train", 4), "stickers"),
        (lambda: world.build("photos", "validation", 4), "pretrain"),
        (lambda: world.build("photos", "train", 4, dials=Dials(style_gap=3)), "from 0 to 1"),
        (lambda: world.intervene(many(n=1)[0], emotion="joy"), "sadness"),
        (lambda: world.intervene(many(n=1)[0], mood="bad"), "emotion"),
        (lambda: world.intervene(many(n=1)[0], event="war"), "grave"),
    ):
        with pytest.raises(KCDPError, match=named):
            call()
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- interventions


def test_do_emotion_changes_what_depends_on_it_and_nothing_else():
    for scene in many(n=100):
        for emotion in EIGHT:
            other = world.intervene(scene, emotion=emotion)
            assert (other.looks, other.place, other.light, other.intensity, other.chance) == (
                scene.looks,
                scene.place,
                scene.light,
                scene.intensity,
                scene.chance,
            )
            assert (
                other.emotion == emotion
                and emotion in causes.EVENTS[other.event][1]
                and (other.response is None or emotion in causes.RESPONSES[other.response][1])
            )
            assert other != scene or emotion == scene.emotion
        assert (
            world.intervene(scene, emotion=scene.emotion) == scene
        )  # consistency: setting what already holds changes nothing


def test_do_event_leaves_the_face_alone_and_is_kept_under_a_second_intervention():
    scene = many(n=1)[0]
    grave = world.intervene(scene, event="grave")
    assert grave == replace(scene, event="grave") and world.intervene(
        grave, response="tears"
    ) == replace(scene, event="grave", response="tears")
    assert world.intervene(scene, response=None).response is None


def test_taking_a_cause_out_of_a_drawing_moves_nothing_else():
    """Pictures with and without an event differ only where it stands."""
    found = 0
    for scene in many("sketches", 60):
        seen = world.shown(scene, "sketches")
        if seen.event and seen.event not in events.WIDE:
            whole, rest = (
                np.asarray(world.render(scene, "sketches", without=without), int)
                for without in (None, "event")
            )
            changed = np.abs(whole - rest).max(-1) > 24
            found += 1
            assert changed.mean() < 0.35
    assert found > 5


# ---------------------------------------------------------------- captions


def test_captions_name_what_is_visible_and_no_emotion(scenes):
    words = (
        {word for group in causes.EMOTION_WORDS.values() for word in group} | set(EIGHT) | set(SIX)
    )
    for domain in BENCHMARK:
        for scene in scenes[domain][:1000]:
            text, seen = world.caption(scene, domain), world.visible_attributes(scene, domain)
            assert not words & set(text.split()) and all(phrase in text for phrase in seen.values())
            assert (
                scene.event is None
                or world.shown(scene, domain).event
                or causes.EVENTS[scene.event][0] not in text
            )  # what is hidden is not mentioned


def test_what_a_caption_leaves_out_is_left_to_the_eye():
    """Brows, nose and gaze change no word."""
    scene = many("stickers", 1)[0]
    face = replace(scene.face, curve=-0.8, open=0.0, eye_open=0.8, tongue=0.0)
    told = {
        world.caption(
            replace(scene, face=replace(face, brow_angle=angle, wrinkle=nose, gaze_x=gaze)),
            "stickers",
        )
        for angle in (-1, 1)
        for nose in (0, 1)
        for gaze in (-1, 1)
    }
    assert len(told) == 1


def test_metadata_holds_every_cause(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    rows = [
        json.loads(line)
        for line in (world.build("stickers", "test", 30) / "metadata.jsonl")
        .read_text()
        .splitlines()
    ]
    for index, row in enumerate(rows):
        scene = world.sample_scene("test", 0, index, "stickers")
        assert (
            row["file_name"] == f"{index:06d}.png"
            and row["label"] == row["emotion"] == scene.emotion
        )
        assert (
            row["looks"]["subject"] == scene.looks.subject
            and row["event"] == scene.event
            and row["shown"]["brows"] in (True, False)
        )
        assert row["shown"]["face"].keys() == set(causes.FEATURES)


def test_the_recorded_key_is_that_of_the_pictures():
    """Code may be renamed and moved; changed pictures need a new version."""
    recorded = json.loads(store.REFERENCE.read_text())
    assert recorded == {"version": store.VERSION, "pictures": store.reference_hash()}, (
        "the pictures changed: raise VERSION in world/store.py, run `python -m kcdp_lib.world`"
    )
    assert world.world_key() == f"{store.VERSION}-{recorded['pictures'][:12]}"
