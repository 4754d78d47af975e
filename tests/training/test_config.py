"""Configs of runs: files, overrides, and one exact line for every kind of mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

import twinspike as ts
from twinspike import plain
from twinspike.network import to_json as network_json
from twinspike_training.config import RunConfig, build_network, embedded, load_config, to_json

KNOWN = "a file, one of authors, cifar100_resnet18, cifar10_resnet18, digits, nmnist, or a recipe (twinspike recipe lists them)"

MISTAKES = {
    "learning_rat=0.1": "digits: learning_rat: unknown key; did you mean 'learning_rate'?",
    "method.neuron.decy=0.5": "digits: method.neuron.decy: unknown key; did you mean 'decay'?",
    "method.neuron.surrogate.slope=2.0": "digits: method.neuron.surrogate.slope: unknown key; known keys: width",
    "optimizer.beta1=0.5": ("digits: optimizer.beta1: unknown key; known keys: momentum, nesterov, weight_decay, decay_scope"),
    "precision=f33": "digits: precision: expected one of f64, f32-ieee, tf32, bf16-mixed, got f33",
    "optimizer.kind=sdg": "digits: optimizer.kind: expected one of sgd, adam, adamw, got sdg; did you mean 'sgd'?",
    "optimizer.momentum=1.5": "digits: optimizer.momentum: expected a finite number in [0, 1), got 1.5",
    'optimizer.kind=["sgd"]': "digits: optimizer.kind: expected one of sgd, adam, adamw, got ['sgd']; did you mean 'sgd'?",
    "method.loss.temperature=1e300": (
        "digits: method.loss.temperature: expected a number > 0 whose square is finite, got 1e+300"
    ),
    "optimizer=3": "digits: optimizer: Expected `object`, got `int`",
    "learning_rate=fast": "digits: learning_rate: Expected `float`, got `str`",
    "learning_rate=-1": "digits: learning_rate: expected a finite number > 0, got -1.0",
    "learning_rate=nan": "digits: learning_rate: expected a finite number > 0, got nan",
    "learning_rate=1 2": "--set: expected a TOML value after '=', got learning_rate=1 2; "
    "a string is quoted for TOML within quotes for the shell: --set 'learning_rate=\"...\"'",
    "learning_rate": "--set: expected key=value or key.sub=value, got learning_rate",
    "=3": "--set: expected key=value or key.sub=value, got =3",
    "seed=-1": "digits: seed: expected a whole number in [0, 2^63), got -1",
    "seed=1.5": "digits: seed: Expected `int`, got `float`",
    "width=-1": "digits: width: expected a whole number >= 1, or 0 for the usual one, got -1",
    "network=": "digits: network and backend: expected names, got an empty string",
    "name=a/b": "digits: name: expected the name of a folder, without / and the null character, got a/b",
    "training.epochs=0": "digits: training.epochs: expected a whole number >= 1, got 0",
    "training.batch_size=1": "digits: training.batch_size: expected a whole number >= 2, got 1",
    "training.log_every=0": "digits: training.log_every: expected a whole number >= 1, got 0",
    "training.checkpoint_every_seconds=-1": "digits: training.checkpoint_every_seconds: expected seconds >= 0, got -1.0",
    "method.time_steps=0": "digits: method.time_steps: expected a whole number >= 1, got 0",
    "method.time_steps.x=1": "--set: expected a table at method.time_steps, got method.time_steps.x=1",
    "method.neuron={decay=2}": "digits: method.neuron.decay: expected a finite number in [0, 1], got 2.0",
    "method.factorization.view=permute": (
        "digits: method.factorization.view: no option any more, kernels are always permuted (clauses FAC-2 and FAC-9); "
        "leave it out, and train anew what was saved with it"
    ),
    "method.factorization.rank=0.0": "digits: method.factorization.rank: expected a finite number in (0, 1), got 0.0",
    "method.factorization.orthogonality.kind=retrct": (
        "digits: method.factorization.orthogonality.kind: expected one of none, penalty, retract, got retrct; "
        "did you mean 'retract'?"
    ),
}


@pytest.mark.parametrize("override", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_key(override: str) -> None:
    with pytest.raises(ts.SpecError) as caught:
        load_config("digits", [override])
    assert str(caught.value) == MISTAKES[override]


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("digit", f"config: expected {KNOWN}, got digit; did you mean 'digits'?"),
        ("no.toml", f"config: expected {KNOWN}, got no.toml"),
    ],
)
def test_an_unknown_config_is_one_line(source: str, line: str) -> None:
    with pytest.raises(ts.SpecError) as caught:
        load_config(source)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.toml", b"x = ", "expected TOML, got Invalid value (at end of document)"),
        ("a.toml", b"[optimizer]\nmomentun = 0.9", "optimizer.momentun: unknown key; did you mean 'momentum'?"),
        ("a.toml", b"seed = [1]", "seed: Expected `int`, got `array`"),
        ("a.json", b"[1]", "expected a table of keys, got list"),
        ("a.json", b'{"seed":', "expected JSON, got Expecting value: line 1 column 9 (char 8)"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, name: str, content: bytes, line: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ts.SpecError) as caught:
        load_config(str(path))
    assert str(caught.value) == f"{path}: {line}"


def test_undecodable_bytes_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    for content, got in {
        "seed = 1\n".encode("utf-16"): "UTF-16; save it as UTF-8",
        b"seed = 1\nname = 'caf\xe9'": "byte 0xe9 in line 2, as Latin-1 and Windows-1252 have it; save it as UTF-8",
    }.items():
        path.write_bytes(content)
        with pytest.raises(ts.SpecError) as caught:
            load_config(str(path))
        assert str(caught.value) == f"{path}: expected text in UTF-8, got {got}"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.toml", b"\xef\xbb\xbfseed = 7"),
        ("a.json", b'\xef\xbb\xbf{"seed": 7}'),
        ("a.JSON", b'{"seed": 7}'),
        ("a.TOML", b"seed = 7\r\n"),
    ],
)
def test_files_as_editors_write_them(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert load_config(str(tmp_path / name)).seed == 7


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5_000, '"\\ud800', "{" * 100_000])
def test_what_parsers_give_up_on_is_one_line(tmp_path: Path, text: str) -> None:
    for name, content in (("a.json", f'{{"seed": {text}}}'), ("a.toml", f"seed = {text}")):
        (tmp_path / name).write_text(content)
        with pytest.raises(ts.SpecError, match=r"^[^\n]+: expected (JSON|TOML), got [^\n]+$"):
            load_config(str(tmp_path / name))
    with pytest.raises(ts.SpecError, match=r"^--set: expected [^\n]+$"):
        load_config("digits", [f"seed={text}"])


def test_a_home_stands_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.toml").write_text("seed = 7")
    assert load_config("~/a.toml").seed == 7
    with pytest.raises(ts.SpecError, match=r"^~: expected a home folder, got none, in ~nobody-is-called-so/a"):
        load_config("~nobody-is-called-so/a")


@pytest.mark.parametrize("name", embedded())
def test_embedded_configs_load_and_survive_json(tmp_path: Path, name: str) -> None:
    config = load_config(name)
    path = tmp_path / "config.json"
    path.write_text(to_json(config))
    assert load_config(str(path)) == config


def test_the_papers_recipe() -> None:
    config = load_config("cifar10_resnet18")
    assert (config.learning_rate, config.training.epochs, config.training.batch_size) == (0.1, 300, 128)
    assert config.optimizer == ts.SGD(momentum=0.0, weight_decay=5e-4, decay_scope="all")
    assert config.schedule == ts.Cosine(floor=0.0, unit="epoch")
    assert config.method == ts.Method()
    assert config.data.policies() == {"crop", "flip", "autoaugment", "cutout"}


def test_overrides_are_toml_values_in_order() -> None:
    config = load_config("digits", ["seed=1", "seed=2", "compile=true", "method.loss.pairs=['snn1<-ann3']", "backend=numpy"])
    assert (config.seed, config.compile, config.method.loss.pairs, config.backend) == (2, True, ("snn1<-ann3",), "numpy")


def test_a_new_kind_starts_its_table_afresh_and_a_left_out_one_is_the_default() -> None:
    assert load_config("digits", ["optimizer.kind=adamw"]).optimizer == ts.AdamW()
    assert load_config("digits", ["method.neuron.surrogate.width=2"]).method.neuron.surrogate == ts.Rectangle(width=2.0)


def test_none_is_the_digits() -> None:
    assert load_config() == load_config("digits")
    assert set(plain.read_table(Path(__file__).parents[2] / "training/twinspike_training/configs/digits.toml")) <= set(
        RunConfig.__struct_fields__
    )


def test_a_network_comes_from_the_zoo_or_a_file_and_must_fit(tmp_path: Path) -> None:
    from_zoo = build_network(RunConfig(network="digits_cnn", width=2), (1, 8, 8), 10, False)
    path = tmp_path / "net.json"
    path.write_text(network_json(from_zoo))
    assert build_network(RunConfig(network=str(path)), (1, 8, 8), 10, False) == from_zoo
    with pytest.raises(ts.SpecError, match=r"net\.json: expected input shape \(3, 32, 32\), 10 classes"):
        build_network(RunConfig(network=str(path)), (3, 32, 32), 10, False)
    with pytest.raises(ts.SpecError, match="width: expected 0 with a network description"):
        build_network(RunConfig(network=str(path), width=3), (1, 8, 8), 10, False)
    with pytest.raises(ts.SpecError, match="got vgg6; did you mean 'vgg16'"):
        build_network(RunConfig(network="vgg6"), (1, 8, 8), 10, False)
    with pytest.raises(ts.SpecError, match=r"network: expected a readable \.json file, got no such file: none\.json"):
        build_network(RunConfig(network="none.json"), (1, 8, 8), 10, False)
