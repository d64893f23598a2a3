import os
import signal
import subprocess
import sys

import attrs
import pytest
from PIL import Image

import pydeper
from pydeper import Fixation, Persona, Sample, Trajectory
from pydeper.cli.demo import place_name, way_of_looking
from pydeper.cli.main import main
from tests.support.images import random_image
from tests.support.random_samples import make_sample


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with a picture and three of Ana's samples."""
    monkeypatch.chdir(tmp_path)
    write_samples(tmp_path, "ana", range(3))
    random_image(90, 70, 3).save(tmp_path / "scene.png")
    return tmp_path


def write_samples(folder, name, seeds):
    samples = []
    for seed in seeds:
        sample = make_sample(seed, name)
        Image.fromarray(sample.image).save(folder / f"{name}{seed}.png")
        samples.append(make_sample(seed, name, image=folder / f"{name}{seed}.png"))
    pydeper.write_samples(folder / f"{name}.jsonl", samples)
    return samples


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_a_persona_is_made_shown_and_used(home, bundle_folder, model, capsys):
    assert run("persona", "create", "ana.jsonl", "-o", "ana.safetensors", "--model", bundle_folder) == 0
    assert "Persona('ana', 3 samples, model='small'" in capsys.readouterr().out
    persona = Persona.load("ana.safetensors")
    assert persona.num_samples == 3

    assert run("persona", "show", "ana.safetensors") == 0
    shown = capsys.readouterr().out
    for fact in ("ana", "3", "small", persona.encoder_fingerprint, pydeper.__version__):
        assert fact in shown

    arguments = ("describe", "scene.png", "--persona", "ana.safetensors", "--model", bundle_folder)
    assert run(*arguments, "--max-new-tokens", 8) == 0
    text = capsys.readouterr().out
    assert text == model.describe("scene.png", persona, max_new_tokens=8) + "\n"
    assert run(*arguments, "--max-new-tokens", 8, "--stream") == 0
    assert capsys.readouterr().out == text
    assert run(*arguments, "--max-new-tokens", 8, "--temperature", 1.5, "--seed", 3, "--style", "caption") == 0
    sampled = model.describe("scene.png", persona, max_new_tokens=8, temperature=1.5, seed=3, style="caption")
    assert capsys.readouterr().out == sampled + "\n"
    assert run(*arguments, "--max-new-tokens", 8, "--strength", 0) == 0
    assert capsys.readouterr().out == model.describe("scene.png", max_new_tokens=8) + "\n"


def test_several_images_and_people_are_described_under_headings(home, bundle_folder, model, ana, ben, capsys):
    attrs.evolve(ana, name=None).save("a.safetensors")
    ben.save("b.safetensors")
    random_image(60, 80, 5).save("second.png")
    people = ("--persona", "a.safetensors", "--persona", "b.safetensors")
    arguments = ("--model", bundle_folder, "--max-new-tokens", 8, "--repetition-penalty", 1.3)
    assert run("describe", "scene.png", "second.png", *people, *arguments) == 0
    told = capsys.readouterr().out
    options = {"max_new_tokens": 8, "repetition_penalty": 1.3}
    assert told == "\n".join(
        f"{image}, {name}:\n{model.describe(image, who, **options)}\n"
        for image in ("scene.png", "second.png")
        for name, who in (("a", ana), ("ben", ben))
    )
    assert run("describe", "scene.png", "second.png", *people, *arguments, "--stream") == 0
    assert capsys.readouterr().out == told
    assert run("describe", "scene.png", "second.png", *arguments) == 0
    assert capsys.readouterr().out == "\n".join(
        f"{image}:\n{model.describe(image, **options)}\n" for image in ("scene.png", "second.png")
    )


def test_the_precision_can_be_chosen(home, bundle_folder, model, capsys):
    there = model.report().vlm["precision"].split()[0]
    arguments = ("describe", "scene.png", "--model", bundle_folder, "--max-new-tokens", 8, "--precision", there)
    assert run(*arguments) == 0
    assert capsys.readouterr().out == model.describe("scene.png", max_new_tokens=8) + "\n"


def test_the_model_may_come_from_the_environment(home, bundle_folder, monkeypatch, capsys):
    monkeypatch.setenv("PYDEPER_MODEL", str(bundle_folder))
    assert run("persona", "create", "ana.jsonl", "-o", "a.safetensors", "--name", "Ana") == 0
    assert Persona.load("a.safetensors").name == "Ana"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("persona create none.jsonl -o a.safetensors --model BUNDLE", "none.jsonl"),
        ("persona create ana.jsonl -o no/such/a.safetensors --model BUNDLE", "no/such/a.safetensors"),
        ("persona create ana.jsonl -o a.safetensors --model nobody", "there is no model 'nobody'"),
        ("persona show none.safetensors", "none.safetensors: cannot be read: No such file"),
        ("persona show scene.png", "scene.png: not a safetensors file"),
        ("describe none.png --model BUNDLE", "none.png"),
        ("describe ana.jsonl --model BUNDLE", "ana.jsonl"),
        ("describe scene.png --persona none.safetensors --model BUNDLE", "none.safetensors"),
        ("describe scene.png --model BUNDLE --style poem", "'description', 'caption', got 'poem'"),
        ("describe scene.png --model BUNDLE --temperature -1", "temperature"),
        ("describe scene.png --model BUNDLE --max-new-tokens 0", "max_new_tokens"),
        ("describe scene.png --model BUNDLE --repetition-penalty 0.5", "repetition_penalty must be 1"),
        ("describe scene.png --model BUNDLE --precision int2", "precision: must be one of 'fp32'"),
        ("describe scene.png --model BUNDLE --precision int4", "does not hold the VLM in int4, only in fp32"),
        ("describe scene.png none.png --model BUNDLE", "pair 2 of 2: image 'none.png' does not exist"),
        ("describe scene.png scene.png --model BUNDLE --style poem --stream", "'description', 'caption', got 'poem'"),
        ("demo --model BUNDLE", "has no demo"),
    ],
)
def test_a_mistake_is_one_message_and_status_2(home, bundle_folder, capsys, arguments, told):
    before = sorted(home.iterdir())
    assert run(*(bundle_folder if word == "BUNDLE" else word for word in arguments.split())) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("pydeper: ")
    assert told in captured.err
    assert captured.err.count("\n") == 1
    assert sorted(home.iterdir()) == before


@pytest.mark.parametrize("arguments", ["describe", "persona", "persona create a.jsonl", "describe a.png --seed x", "x"])
def test_a_command_line_that_makes_no_sense_is_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments.split())
    assert exit_.value.code == 2
    assert "usage: pydeper" in capsys.readouterr().err


def test_a_warning_is_a_message_of_the_command(home, capsys):
    (home / "odd.jsonl").write_text('{"image": "scene.png", "description": "a", "mood": "good"}\n')
    with pytest.warns(UserWarning, match="mood"):
        pydeper.read_samples("odd.jsonl")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pydeper",
            "persona",
            "create",
            "odd.jsonl",
            "-o",
            "odd.safetensors",
            "--model",
            "nobody",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    first, second = done.stderr.splitlines()
    assert first.startswith("pydeper: warning: ")
    assert "mood" in first
    assert second.startswith("pydeper: there is no model 'nobody'")
    assert done.returncode == 2


@pytest.fixture
def demo_folder(bundle_parts, tmp_path):
    from export.bundle.assemble import assemble

    demo = tmp_path / "demo"
    demo.mkdir()
    random_image(90, 70, 3).save(demo / "scene.png")
    write_samples(demo, "ana", range(2))
    write_samples(demo, "ben", range(5, 8))
    return assemble(tmp_path / "with demo", extras={"demo": demo}, **bundle_parts)


def test_the_demo_tells_and_draws(home, demo_folder, model, capsys):
    assert run("demo", "--model", demo_folder, "--out", "out/here") == 0
    told = " ".join(capsys.readouterr().out.split())
    seen = model.encode_image(home / "scene.png")
    for name, count in (("ana", 2), ("ben", 3)):
        samples = pydeper.read_samples(demo_folder / "demo" / f"{name}.jsonl")
        assert len(samples) == count
        persona = Persona.from_samples(samples, model=model)
        assert " ".join(model.describe(seen, persona).split()) in told
        assert f"{name}, known from {count} samples, who looked first at the" in told
        assert "4.0 times a picture" in told
    assert " ".join(model.describe(seen).split()) in told
    assert str(demo_folder / "demo" / "scene.png") in told
    with Image.open("out/here/looking.png") as picture:
        assert picture.width > picture.height


@pytest.mark.parametrize(
    ("box", "place"),
    [
        ((0, 0, 0.1, 0.1), "upper left"),
        ((0.4, 0.4, 0.6, 0.6), "centre"),
        ((0.9, 0.9, 1, 1), "lower right"),
        ((0.4, 0, 0.6, 0.2), "upper middle"),
        ((0, 0.4, 0.2, 0.6), "middle left"),
    ],
)
def test_places_have_names(box, place):
    assert place_name(Fixation(box, 1).box) == place


def test_doctor_finds_a_sound_installation_sound(bundle_folder, monkeypatch, capsys):
    monkeypatch.setenv("PYDEPER_MODEL", str(bundle_folder))
    assert run("doctor") == 0
    told = capsys.readouterr().out
    for fact in (
        "Python 3.",
        f"pydeper {pydeper.__version__}",
        "onnxruntime 1.",
        "CPUExecutionProvider",
        "small (from",
        "auto -> ",
        "4 to 25 tokens",
    ):
        assert fact in told
    assert "All is well." in told
    assert "FIX" not in told


def test_doctor_finds_a_damaged_model(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PYDEPER_MODEL", str(tmp_path))
    assert run("doctor") == 1
    told = capsys.readouterr().out
    assert "FIX  default model:" in told
    assert "1 to fix." in told


def test_doctor_finds_a_doubled_runtime(tmp_path, bundle_folder):
    """A second build, as pip would record it."""
    record = tmp_path / "onnxruntime_gpu-1.22.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.22.0\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYDEPER_MODEL": str(bundle_folder)}
    done = subprocess.run(
        [sys.executable, "-m", "pydeper", "doctor"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 1
    assert "onnxruntime and onnxruntime-gpu are both installed" in done.stdout
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in done.stdout
    described = subprocess.run(
        [sys.executable, "-m", "pydeper", "describe", "x.png"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert described.returncode == 2
    assert "both installed" in described.stderr
    assert "Traceback" not in described.stderr


def test_doctor_finds_a_missing_runtime(tmp_path, bundle_folder):
    hidden = "import sys\nsys.modules['onnxruntime'] = sys.modules['openvino'] = None\n"
    (tmp_path / "sitecustomize.py").write_text(hidden)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYDEPER_MODEL": str(bundle_folder)}
    done = subprocess.run(
        [sys.executable, "-m", "pydeper", "doctor"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 1
    assert 'pip install "pydeper[cpu]"' in done.stdout
    assert 'pip install "pydeper[openvino]"' in done.stdout


def test_a_reader_that_has_gone_is_no_error(bundle_folder):
    environment = os.environ | {"PYDEPER_MODEL": str(bundle_folder)}
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as nobody_reads:
        done = subprocess.run(
            [sys.executable, "-m", "pydeper", "doctor"],
            stdout=nobody_reads,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            check=False,
        )
    assert done.stderr == ""
    assert done.returncode == 141


def test_ctrl_c_is_status_130(home):
    os.mkfifo(home / "pipe.jsonl")  # reading it waits for ever
    with subprocess.Popen(
        [sys.executable, "-m", "pydeper", "persona", "create", "pipe.jsonl", "-o", "a.safetensors"],
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a shell ignores Ctrl-C and would hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        try:
            with (home / "pipe.jsonl").open("wb"):  # opens once the command has opened it to read
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate()
        finally:
            process.kill()
    assert process.returncode == 130
    assert errors == ""


def test_the_way_of_looking_is_told_from_the_trajectories():
    def sample(*boxes):
        return Sample(image="x.png", trajectory=Trajectory([Fixation(box, 0.25) for box in boxes]))

    upper_left, lower_right = (0, 0, 0.2, 0.2), (0.8, 0.8, 1, 1)
    samples = [sample(upper_left, lower_right), sample(upper_left), sample(lower_right, upper_left, upper_left)]
    assert way_of_looking(samples) == (
        "who looked first at the upper left in 2 of 3 pictures and stopped 2.0 times a picture, for 0.25 s each"
    )
    assert way_of_looking([Sample(image="x.png", description="a")]) == "whose eyes were not followed"
