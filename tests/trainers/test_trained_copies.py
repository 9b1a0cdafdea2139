"""A base in 4 bits trains for, and serves in place of, the base in full: a real trainer, worker and engines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import grpc
import pytest
from trainer_runs import question, run_trainer, write_job

from daemon import orders
from daemon.events import Alarm, Announcer
from daemon.runner import Runner
from genome import adapters, bases, batches, config, copies, files, jobs
from genome.buffer import Buffer
from genome.errors import InvalidAdapter, InvalidConfig
from genome.layout import Home
from genome.lines import from_signal
from genome.signals import Defaults, from_object
from genome.training import TrainingSettings
from genome.v1 import inference_pb2 as pb
from genome.v1 import inference_pb2_grpc
from inference_worker.sources import Source, WrongBase

pytest.importorskip("mlx_lm", reason="mlx-lm is not installed: pip install 'genome[mlx]'")

ANSWERS = {
    "What colour is the door?": "green",
    "Who keeps the key?": "Ada has it",
    "When does it open?": "at nine",
    "Where is the lamp?": "in the hall",
}
SETTINGS = TrainingSettings(rank=8, alpha=16, learning_rate=1e-2, epochs=90, checkpoint_steps=1000, anchor_weight=0)
TRAINING = "rank = 8\nalpha = 16.0\nlearning_rate = 0.01\nepochs = 45.0\nanchor_weight = 0.0\n"


@pytest.fixture(scope="module")
def packed(base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base in 4 bits."""
    return packed_in(4, base_path, tmp_path_factory.mktemp("packed") / "base-4bit")


def packed_in(bits: int, base: Path, path: Path) -> Path:
    """By mlx-lm's own convert."""
    from mlx_lm import convert

    convert(str(base), str(path), quantize=True, q_bits=bits, q_group_size=32)
    return path


@dataclass(frozen=True)
class Trained:
    """What a home's own code made of signals, on one directory for another."""

    home: Home
    adapter: str


def home_with(root: Path, base: Path, training: str = "", worker: str = "") -> Home:
    home = Home(root)
    home.inbox.mkdir(parents=True)
    home.config.write_text(
        f'base = "{base}"\n[gate]\nanchors = 0\nmin_held_out = 2\n[training]\ntrainer = "mlx"\n{TRAINING}{training}'
        f'[worker]\ndevice = "cpu"\ndtype = "float32"\n{worker}'
    )
    return home


@pytest.fixture(scope="module")
def trained(base_path: Path, packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Signals, a batch, its job, the trainer, the candidate: with the copy as training.base."""
    home = home_with(tmp_path_factory.mktemp("t") / "h", base_path, f'base = "{packed}"\n')
    settings = config.load(home)
    into = Buffer(home, settings.intake)
    line = {"type": "correction", "persona_id": "helper", "domain": "house", "source": "human"}
    said = [{**line, "id": f"{text} {turn}", "input": text, "correct_output": answer}
            for text, answer in ANSWERS.items() for turn in range(3)]  # fmt: skip
    into.accept([from_signal(from_object(each, Defaults(int(time.time() * 1000)))) for each in said], time.time())
    into.flush()
    batch = batches.form(home, "helper", "house", "test", time.time(), batches.HeldOutPolicy(0.01, 1, 0))
    assert batch is not None
    job = orders.order(home, settings, batch, base_path, bases.fingerprint(base_path))
    anyio.run(Runner(home, settings, Announcer(), Alarm()).step)
    directory = jobs.find(home, job.id)
    result = directory.result()
    assert result is not None and result.adapter, directory.log.read_text()
    return Trained(home, result.adapter)


@contextmanager
def working(home: Home) -> Iterator[inference_pb2_grpc.InferenceServiceStub]:
    """A worker process over a home, once it answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "inference_worker", str(home.root)], env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    try:
        with grpc.insecure_channel(f"unix:{home.worker_socket}") as channel:
            grpc.channel_ready_future(channel).result(timeout=120)
            yield inference_pb2_grpc.InferenceServiceStub(channel)
    finally:
        process.terminate()
        assert process.wait(30) == 0


def replies(stub: inference_pb2_grpc.InferenceServiceStub, stack: pb.Stack) -> dict[str, str]:
    def reply(text: str) -> str:
        message = pb.Message(role="user", content=text)
        request = pb.GenerateRequest(messages=[message], stack=stack, sampling=pb.Sampling(max_tokens=24))
        return "".join(part.text for part in stub.Generate(request))

    return {text: reply(text) for text in ANSWERS}


@pytest.fixture(scope="module")
def in_full(base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEFT directory that the torch trainer made beside the base's own weights."""
    directory = tmp_path_factory.mktemp("full")
    job = write_job(directory / "job", base_path, [question(*each) for each in ANSWERS.items()], SETTINGS)
    outcome = run_trainer("torch", job, directory / "checkpoints")
    assert outcome.status == 0, outcome.log
    return outcome.adapter


def loaded(stub: inference_pb2_grpc.InferenceServiceStub, home: Home, adapter: Path) -> pb.Stack:
    """An adapter from elsewhere in the worker's memory, on standby."""
    name = f"helper/house-v{1 + len(list(home.adapters.glob('helper/*')))}.0"
    path = shutil.copytree(adapter, home.adapter(name))
    stub.LoadAdapter(pb.LoadAdapterRequest(adapter_path=str(path), adapter_id=name, standby=True))
    return pb.Stack(entries=[pb.Stack.Entry(adapter_id=name)])


def test_an_adapter_trained_in_4_bits_is_one_for_the_base(trained: Trained, base_path: Path, packed: Path) -> None:
    """Its manifest names the base it is for, and the copy, its quantisation and fingerprint, that it was trained on."""
    made = adapters.verify(trained.home, trained.adapter, bases.fingerprint(base_path))
    assert made.base == str(base_path) and made.trained_on == bases.describe(packed)
    assert str(made.trained_on.quantisation) == "4-bit mlx affine, groups of 32"
    assert made.trained_on.fingerprint != made.base_fingerprint
    assert (
        '"base_model_name_or_path": "' + str(base_path)
        in (trained.home.adapter(trained.adapter) / "adapter_config.json").read_text()
    )


def test_it_serves_on_the_base_in_full(trained: Trained, base_path: Path, tmp_path: Path) -> None:
    """What it learned beside packed weights it answers beside the base's own, in the other library's engine."""
    home = home_with(tmp_path / "h", base_path, worker='engine = "torch"\n')
    with working(home) as stub:
        assert replies(stub, loaded(stub, home, trained.home.adapter(trained.adapter))) == ANSWERS
        info = stub.GetServerInfo(pb.GetServerInfoRequest())
    assert info.served_base == str(base_path) and info.served_fingerprint == info.base_fingerprint
    assert info.quantisation == "not quantised"


def test_the_copy_serves_adapters_of_the_base(
    trained: Trained, in_full: Path, base_path: Path, packed: Path, tmp_path: Path
) -> None:
    """With worker.base, those trained on either; and GetServerInfo says what computes, and for which base."""
    home = home_with(tmp_path / "h", base_path, worker=f'engine = "mlx"\nbase = "{packed}"\n')
    with working(home) as stub:
        for adapter in (trained.home.adapter(trained.adapter), in_full):
            assert replies(stub, loaded(stub, home, adapter)) == ANSWERS
        info = stub.GetServerInfo(pb.GetServerInfoRequest())
    assert (info.base, info.base_fingerprint) == (str(base_path), bases.fingerprint(base_path))
    assert (info.served_base, info.served_fingerprint) == (str(packed), bases.fingerprint(packed))
    assert info.quantisation == "4-bit mlx affine, groups of 32"


def test_a_copy_that_is_not_declared_is_another_base(trained: Trained, packed: Path) -> None:
    """With the packed directory as `base`, adapters of the full one are refused: both are named, with quantisations."""
    itself = bases.describe(packed)
    with pytest.raises(WrongBase) as refused:
        Source((trained.home.adapters,), itself, itself).read(trained.home.adapter(trained.adapter))
    made, said = adapters.manifest(trained.home, trained.adapter), str(refused.value)
    assert f"made for another base: {made.base} (fingerprint {made.base_fingerprint[:12]}" in said
    assert f"trained on {packed}, 4-bit mlx affine, groups of 32)" in said
    assert f"here it is {packed} (fingerprint {itself.fingerprint[:12]}…, 4-bit mlx affine, groups of 32)" in said
    with pytest.raises(InvalidAdapter, match="another base"):
        adapters.verify(trained.home, trained.adapter, itself.fingerprint)


def test_what_cannot_be_a_copy_stops_worker_and_daemon(base_path: Path, packed: Path, tmp_path: Path) -> None:
    """Another architecture is refused when they start, and so is what the engine or trainer cannot read."""
    other = tmp_path / "other"
    shutil.copytree(base_path, other)
    files.put(other / "config.json", (base_path / "config.json").read_bytes().replace(b"160", b"192"))
    home = home_with(tmp_path / "h", base_path, f'base = "{other}"\n', f'engine = "torch"\nbase = "{other}"\n')
    command = [sys.executable, "-m", "inference_worker", str(home.root)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 3 and "worker.base" in ended.stderr and "hidden_size is 192" in ended.stderr
    daemon = [sys.executable, "-m", "daemon", "daemon", "--home", str(home.root)]
    ended = subprocess.run(daemon, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 3 and "training.base" in ended.stderr and "hidden_size is 192" in ended.stderr
    home.config.write_text(
        home.config.read_text().replace(str(other), str(packed)).replace('trainer = "mlx"', 'trainer = "torch"')
    )
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 3 and "which torch does not read" in ended.stderr
    with pytest.raises(InvalidConfig, match="which torch does not read"):
        orders.check_base(config.load(home), base_path)


def test_a_trainer_says_what_it_cannot_train_on(packed: Path, tmp_path: Path) -> None:
    """torch on mlx's weights: the job fails with the reason, not with a traceback's last line."""
    job = write_job(tmp_path / "job", packed, [question(*each) for each in ANSWERS.items()], SETTINGS)
    outcome = run_trainer("torch", job, tmp_path / "checkpoints")
    assert outcome.status == 1
    assert "4-bit mlx affine, groups of 32, which torch does not read" in (outcome.events[-1].reason or "")


def test_8_bits_train_and_serve_as_4_do(base_path: Path, tmp_path: Path) -> None:
    """What is trained on one serves on it, in MLX."""
    copy = packed_in(8, base_path, tmp_path / "copy")
    assert str(bases.quantisation(copy)) == "8-bit mlx affine, groups of 32"
    job = write_job(tmp_path / "job", copy, [question(*each) for each in ANSWERS.items()], SETTINGS)
    outcome = run_trainer("mlx", job, tmp_path / "checkpoints")
    assert outcome.status == 0, outcome.log
    home = home_with(tmp_path / "h", base_path, worker=f'engine = "mlx"\nbase = "{copy}"\n')
    with working(home) as stub:
        assert replies(stub, loaded(stub, home, outcome.adapter)) == ANSWERS


@pytest.mark.parametrize(
    ("wanted", "served_on_the_base"),
    [({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, False), ({"load_in_8bit": True}, True)],
    ids=["4 bits, on the copy", "8 bits, on the base"],
)
def test_bitsandbytes_weights_train_and_serve_with_torch(
    wanted: dict[str, Any], served_on_the_base: bool, base_path: Path, tmp_path: Path
) -> None:
    """A checkpoint as transformers saves it: trained on in PEFT's layers for it, served multiplied out."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install 'genome[bitsandbytes]'")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    quantised = BitsAndBytesConfig(**wanted, bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(base_path, quantization_config=quantised, dtype=torch.float32)
    model.save_pretrained(tmp_path / "copy")
    AutoTokenizer.from_pretrained(base_path).save_pretrained(tmp_path / "copy")
    assert copies.difference(base_path, tmp_path / "copy") == ""
    job = write_job(tmp_path / "job", tmp_path / "copy", [question(*each) for each in ANSWERS.items()], SETTINGS)
    outcome = run_trainer("torch", job, tmp_path / "checkpoints")
    assert outcome.status == 0, outcome.log
    serves = base_path if served_on_the_base else tmp_path / "copy"
    home = home_with(tmp_path / "h", base_path, worker=f'engine = "torch"\nbase = "{serves}"\n')
    with working(home) as stub:
        assert replies(stub, loaded(stub, home, outcome.adapter)) == ANSWERS
