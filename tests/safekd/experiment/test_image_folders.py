"""An experiment file whose data are images: a folder with a subfolder a class."""

from __future__ import annotations

import json
import os
import struct
import zlib

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import safekd as kd
from safekd.errors import InvalidConfig, InvalidInput
from safekd.experiment import build_experiment
from safekd.experiment.config import load_config
from safekd.experiment.images import ImageShape, _image_pixels, name_pixels, read_images
from safekd.experiment.images._image_pixels import ImageSettings
from safekd.saved_students import predict_file, read_labeled_rows
from tests.support.cli_runner import run_cli

CONFIG = """
[data]
source = "images"
image_size = SIZE
MORE
[[teachers]]
name = "forest"
kind = "random_forest"
options = { n_estimators = 10 }
TEACHER
[student]
STUDENT
[[constraints]]
name = "dark"
critical = ["dark"]
at_least = 0.5
[training]
epochs = 20
"""


def draw_image(rng, label, size=(9, 7)):
    """A noisy image, its left half dark or bright."""
    pixels = rng.integers(100, 156, size=(*size, 3))
    pixels[:, : size[1] // 2] += 90 if label == "bright" else -90
    return Image.fromarray(pixels.astype(np.uint8))


def write_images(folder, each=40):
    rng = np.random.default_rng(0)
    for label in ("dark", "bright"):
        (folder / label).mkdir(parents=True)
        for number in range(each):
            suffix = ("png", "jpg", "JPEG")[number % 3]
            draw_image(rng, label).save(folder / label / f"{number:02d}.{suffix}")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_images(folder / "images")
    return folder


def write(folder, size="4", more="", teacher="", student='kind = "cnn"\noptions = { channels = [4] }'):
    text = CONFIG.replace("SIZE", size).replace("MORE", more).replace("TEACHER", teacher).replace("STUDENT", student)
    (folder / "mine.toml").write_text(text)
    return folder / "mine.toml"


def build(*given, **more):
    return build_experiment(*load_config(write(*given, **more)))


@pytest.mark.parametrize(
    ("size", "more", "shape"),
    [("4", "", (3, 4, 4)), ("[6, 5]", 'color = "grayscale"', (1, 6, 5)), ("[9, 7]", "", (3, 9, 7))],
)
def test_every_pixel_is_a_feature(images, size, more, shape):
    table = build(images, size, more, student="hidden = []").table
    assert (table.classes, table.contexts) == (["bright", "dark"], ["all"])
    assert table.image_shape == shape
    assert len(table.features) == np.prod(shape) == table.x_NF.shape[1]
    assert table.features[1] == ("gray_0_1" if shape[0] == 1 else "red_0_1")
    assert table.keys[:2] == ["bright/00.png", "bright/01.jpg"]
    assert table.label_N.tolist() == [int(key.startswith("dark")) for key in table.keys]
    for row in (0, 1, 60):  # as Pillow shows them
        image = Image.open(images / "images" / table.keys[row]).convert("L" if shape[0] == 1 else "RGB")
        wanted = np.asarray(image.resize((shape[2], shape[1]), Image.Resampling.BILINEAR), dtype=float) / 255
        channels = [wanted] if shape[0] == 1 else [wanted[..., c] for c in range(3)]
        np.testing.assert_array_equal(table.x_NF[row].reshape(shape), channels)
        color, y, x = table.features[-1].split("_")
        assert (color, int(y), int(x)) == ("gray" if shape[0] == 1 else "blue", shape[1] - 1, shape[2] - 1)


def test_a_run_is_trained_loaded_asked_and_certified(images, tmp_path, capsys):
    ran = run_cli(capsys, "train", write(images), "--run-dir", tmp_path / "run")
    assert ran.code in (0, 1), ran.err
    student = kd.load(tmp_path / "run")
    assert student.require_spec().images == ImageShape(3, 4, 4)
    assert type(student.student.layers[0]).__name__ == "Conv2d"
    folder = images / "images"
    summary = predict_file(student, folder, tmp_path / "out.csv")
    told = pd.read_csv(tmp_path / "out.csv")
    assert summary.rows == 80
    assert (told["file"].str.split("/").str[0] == told["predicted"]).mean() > 0.9
    x_NF = read_images(folder, told["file"].tolist(), ImageShape(3, 4, 4))
    np.testing.assert_allclose(told["probability: dark"], student(x_NF)[:, 1], rtol=1e-6)
    flat = predict_file(student, folder / "dark", tmp_path / "flat.parquet")
    assert pd.read_parquet(tmp_path / "flat.parquet")["file"].tolist() == sorted(os.listdir(folder / "dark"))
    assert flat.rows == 40
    split = read_labeled_rows(student, folder)
    assert [split.class_names[c] for c in split.labels.tolist()] == ["bright"] * 40 + ["dark"] * 40
    (tmp_path / "new" / "gray").mkdir(parents=True)
    draw_image(np.random.default_rng(0), "dark").save(tmp_path / "new" / "gray" / "0.png")
    refused = run_cli(capsys, "certify", tmp_path / "run", tmp_path / "new")
    assert refused.refused("new/gray is the folder of none of the student's classes; these are: bright, dark"), (
        refused.err
    )
    rows = pd.read_csv(tmp_path / "run" / "splits.csv")
    assert rows["key"].tolist() == told["file"].tolist()
    card = (tmp_path / "run" / "MODEL_CARD.md").read_text()
    assert "safekd predict RUN images/" in card
    assert "scaled to 4 x 4" in card
    record = json.loads((tmp_path / "run" / "student.json").read_text())
    assert (record["kind"], record["image_shape"]) == ("cnn", [3, 4, 4])
    assert len(record["source_sha256"]) == 64


def test_the_student_of_another_data_set_refuses_images(images, tmp_path):
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(200, 2)), columns=["a", "b"])
    frame.assign(y=np.where(frame["a"] > 0, "u", "v")).to_csv(tmp_path / "c.csv", index=False)
    text = CONFIG.replace('source = "images"\nimage_size = SIZE', 'source = "c.csv"\nlabel = "y"').replace("dark", "u")
    for name in ("MORE", "TEACHER", "STUDENT"):
        text = text.replace(name, "")
    (tmp_path / "t.toml").write_text(text)
    experiment = build_experiment(*load_config(tmp_path / "t.toml"))
    result = experiment.trainer().fit(experiment.train, experiment.validation, epochs=1)
    from safekd.saved_students import SavedStudent, describe_student

    student = SavedStudent(tmp_path, result, describe_student(experiment, tmp_path), result.student)
    with pytest.raises(InvalidInput, match="is a folder, and the student takes the rows of a table"):
        predict_file(student, images / "images", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_teachers_see_pixels_or_are_stored_by_the_names_of_images(images):
    table = build(images).table
    dark = np.linspace(0.1, 0.9, 80)
    stored = pd.DataFrame({"file": table.keys, "dark": dark, "bright": 1 - dark}).sample(frac=1, random_state=0)
    stored.to_csv(images / "api.csv", index=False)
    more = '[[teachers]]\nname = "api"\nkind = "stored"\npath = "api.csv"\nkey = "file"\n'
    more += '[[teachers]]\nname = "red"\nkind = "logistic_regression"\nfeatures = ["red_*"]'
    experiment = build(images, teacher=more)
    for name, split in experiment.splits.items():
        said = experiment.ensemble.log_probabilities(split.batch(), name)[:, 1].exp()
        np.testing.assert_allclose(said[:, 1], dark[experiment.index[name]], rtol=1e-5)


def test_the_convolutional_student():
    from safekd.experiment import find_student

    shape = ImageShape(1, 5, 1)
    student = find_student("cnn", {"channels": [3, 2], "kernel": 5}).build(5, 4, 0, shape)
    assert student(torch.rand(6, 5)).shape == (6, 4)
    again = find_student("cnn", {"channels": [3, 2], "kernel": 5}).build(5, 4, 0, shape)
    assert all(torch.equal(one, two) for one, two in zip(student.parameters(), again.parameters(), strict=True))
    for options, message in (
        ({"channels": []}, r"channels is \[\]; wanted 1 to 10"),
        ({"channels": [2.0]}, r"channels is \[2\.0\]"),
        ({"kernel": 4}, "kernel is 4; wanted an odd number"),
        ({"depth": 4}, r"unexpected keyword argument 'depth'. It takes: channels, kernel"),
    ):
        with pytest.raises(InvalidConfig, match=message):
            find_student("cnn", options).build(5, 4, 0, shape)


# ------------------------------------------------------------------------------------------------------------ refusals


def make_bomb(path, side=20_000):
    """A PNG file that speaks of ``side`` x ``side`` pixels and has a few bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


def truncate(path):
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 255, size=(60, 60, 3)).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])


def clear(path):
    image = draw_image(np.random.default_rng(0), "dark").convert("RGBA")
    image.putpixel((0, 0), (0, 0, 0, 10))
    image.save(path)


def animate(path):
    frames = [draw_image(np.random.default_rng(n), "dark") for n in range(2)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


BAD = {
    "a bomb": ("new.png", make_bomb, r"dark/new\.png (has 20,000 x 20,000 pixels|cannot .* far too large)"),
    "too many pixels": (
        "new.png",
        lambda path: make_bomb(path, 11_000),
        r"dark/new\.png has 11,000 x 11,000 pixels; wanted at most 100,000,000 in all\. Scale it down",
    ),
    "truncated": ("new.png", truncate, r"dark/new\.png cannot be read as a PNG or JPEG image: .*truncated"),
    "truncated jpg": ("new.jpg", truncate, r"dark/new\.jpg cannot be read as a PNG or JPEG image: .*truncated"),
    "text": ("new.png", lambda path: path.write_text("hello"), r"dark/new\.png cannot be read as a PNG or JPEG image"),
    "empty": ("new.png", lambda path: path.write_bytes(b""), r"dark/new\.png cannot be read as a PNG or JPEG image"),
    "of ink": (
        "new.jpg",
        lambda path: Image.new("CMYK", (4, 4)).save(path),
        r"dark/new\.jpg has colors of mode 'CMYK'; wanted red, green and blue",
    ),
    "of 16 bits": ("new.png", lambda path: Image.new("I;16", (4, 4)).save(path), r"new\.png has colors of mode 'I;16'"),
    "transparent": ("new.png", clear, r"dark/new\.png has transparent pixels"),
    "an animation": ("new.png", animate, r"dark/new\.png is an animation of 2 pictures"),
    "another format": (
        "new.png",
        lambda path: Image.new("RGB", (4, 4)).save(path, format="BMP"),
        r"dark/new\.png cannot be read as a PNG or JPEG image",
    ),
    "another suffix": ("notes.txt", lambda path: path.write_text("x"), r"dark/notes\.txt is no image that can be read"),
    "a folder": ("more", lambda path: path.mkdir(), "dark/more is a folder in the folder of a class"),
    "a link out": ("new.png", lambda path: path.symlink_to("/etc/passwd"), r"dark/new\.png is a link out of .*images"),
    "a folder out": ("../leak", lambda path: path.symlink_to("/etc"), r"images/leak is a link out of"),
    "a name of bytes": (
        "new.png",
        lambda path: os.rename(path.parent / "00.png", os.fsencode(path.parent) + b"/\xff.png"),
        r"dark holds '\\udcff\.png', a name with characters that cannot be shown",
    ),
    "a pipe": ("new.png", os.mkfifo, r"Cannot read .*dark/new\.png: it is a named pipe"),
    "a loose image": ("../new.png", lambda path: Image.new("L", (4, 4)).save(path), r"images/new\.png is in no subfol"),
    "an empty class": ("../none", lambda path: path.mkdir(), "images/none holds no image"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_cannot_be_used_is_refused_by_its_name(tmp_path, capsys, case):
    name, make, message = BAD[case]
    write_images(tmp_path / "images", each=12)
    make(tmp_path / "images" / "dark" / name)
    with pytest.raises(InvalidInput, match=message):
        build(tmp_path)
    assert run_cli(capsys, "train", tmp_path / "mine.toml", "--run-dir", tmp_path / "run").refused()


def test_what_is_fine(tmp_path):
    """Gray, palette and opaque images, a picture that a camera turned, hidden files, a link inside the folder."""
    write_images(tmp_path / "images", each=12)
    dark = tmp_path / "images" / "dark"
    source = draw_image(np.random.default_rng(5), "dark")
    source.convert("L").save(dark / "gray.png")
    source.convert("P").save(dark / "palette.png")
    source.convert("RGBA").save(dark / "opaque.png")
    source.convert("1").save(dark / "bits.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    source.transpose(Image.Transpose.ROTATE_90).save(dark / "turned.png", exif=exif)
    source.save(dark / "camera.jpg", format="MPO", save_all=True, append_images=[source])  # with a preview
    (dark / ".DS_Store").write_bytes(b"x")
    (tmp_path / "images" / "README.txt").write_text("about")
    (dark / "link.png").symlink_to("opaque.png")
    shape = ImageShape(3, 9, 7)
    read = dict(zip(names := ["opaque.png", "turned.png", "link.png"], read_images(dark, names, shape), strict=True))
    np.testing.assert_array_equal(read["turned.png"], read["opaque.png"])
    np.testing.assert_array_equal(read["link.png"], read["opaque.png"])
    assert len(build(tmp_path).table.keys) == 24 + 7


def test_more_images_than_the_memory_holds(tmp_path, monkeypatch):
    write_images(tmp_path / "images", each=12)
    monkeypatch.setattr(_image_pixels, "SETTINGS", ImageSettings(memory_share=1e-9))
    with pytest.raises(
        InvalidInput, match=r"images holds 24 images, which take .* GB; take a smaller data\.image_size"
    ):
        build(tmp_path)


REFUSED = {
    "no size": (("4", ""), "image_size = 4", "", "a folder of images `image_size`"),
    "a table's key": (("4", 'label = "x"'), "", "", "`label` is of a table, and `image_size` says"),
    "three sides": (("[1, 2, 3]", ""), "", "", r"`image_size` is \[1, 2, 3\]; wanted one number"),
    "too large": (("10000", ""), "", "", "1 to 256"),
    "another color": (("4", 'color = "cmyk"'), "", "", r"data\.color' is 'cmyk'"),
    "a folder of images alone": (
        ("4", ""),
        '"images"',
        '"images/dark"',
        r"dark/00\.png is in no subfolder; wanted each",
    ),
    "a folder of nothing": (("4", ""), '"images"', '"empty"', "empty has no subfolder; wanted one for each"),
    "a zero in the path": (("4", ""), '"images"', '"a\\u0000b"', r"Cannot read the folder '.*a\\x00b': embedded null"),
    "no folder": (("4", ""), '"images"', '"nowhere"', "Cannot read the folder .*nowhere: No such file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_keys_that_do_not_fit(tmp_path, case):
    given, old, new, message = REFUSED[case]
    write_images(tmp_path / "images", each=12)
    (tmp_path / "empty").mkdir()
    path = write(tmp_path, *given)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises((InvalidConfig, InvalidInput), match=message):
        build_experiment(*load_config(path))


def test_color_without_images():
    assert name_pixels(ImageShape(3, 1, 2)) == ["red_0_0", "red_0_1", "green_0_0", "green_0_1", "blue_0_0", "blue_0_1"]
    from safekd.experiment.config import parse_config

    text = CONFIG.replace("image_size = SIZE", 'label = "x"\ncolor = "rgb"')
    for name in ("MORE", "TEACHER", "STUDENT"):
        text = text.replace(name, "")
    with pytest.raises(InvalidConfig, match="`color` is of images; give `image_size`"):
        parse_config(text, "mine.toml")
