"""A client of a federation: it trains on rows that stay with it, and sends what that changed."""

import contextlib
import dataclasses
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xxhash

from data.errors import UserError
from data.rows.order import few_of, fold
from data.tokenizer import load_tokenizer
from train.adapters.options import Tuning
from train.bridge.adapters import digest_of
from train.devices.mesh import make_mesh
from train.experiment import Experiment, MeshShape
from train.federated.added import FILE, Added
from train.federated.exchange import vector_of
from train.federated.messages import PROTOCOL, Arrays, Malformed, checked, flat, shapes_of, tree_of
from train.federated.network import Server
from train.federated.options import Gathered
from train.federated.secure import SecureClient
from train.generation.chat import FILE as CHAT
from train.kinds import Data, Dataset, Units
from train.loop.checks import check_options
from train.objectives.bind import bind_trained, state_of
from train.runs.classes import finder
from train.runs.directory import Run, create_run
from train.runs.serialize import FORMAT, from_json
from train.runs.start import frozen_of, start_parameters
from train.sources.dataset import check_reads, dataset_of
from train.step.federated.local import clipped, local_update, with_loss
from train.step.state import Purpose, random_key
from train.step.update import compiler_options, on_mesh

ALIVE = 15.0
"""Seconds between two signs of life while a client trains."""


def joined(server: Server) -> tuple[Experiment, dict[str, Any]]:
    """The experiment of a server, without data, and all that it says."""
    said = server("join", {"format": FORMAT, "protocol": PROTOCOL})
    files = said.get("tokenizer")
    if not isinstance(files, dict) or not all(isinstance(content, bytes) and Path(name).name == name for name, content in files.items()):
        raise Malformed("the server sends no tokenizer")
    if not isinstance(said.get("chat"), bytes):
        raise Malformed("the server does not say how conversations are written")
    experiment = from_json(Experiment, said.get("experiment"), "the server's experiment", finder("the server", None, print))  # type: ignore[arg-type]
    assert isinstance(experiment, Experiment)
    if not isinstance(experiment.gradient, Gathered):
        raise Malformed("the server's experiment is none of a federation")
    if experiment.objective.teacher:
        raise Malformed("the server's experiment names a folder of a teacher, and clients have none")
    check_options(experiment)
    # A client alone says which of its files are read: a server that named some would have them.
    return dataclasses.replace(experiment, data=without_files(experiment.data), start=""), said


def without_files(data: Data) -> Data:
    """The options of data, which name no file any more. Nothing is kept from training: a client has nothing to measure with."""
    kept: dict[str, Any] = {"validation": 0.0} if hasattr(data, "validation") else {}
    return dataclasses.replace(data.without_files(), **kept)


def made_run(folder: str, experiment: Experiment, said: dict[str, Any], data: Data, start: str) -> tuple[Run, list]:
    """A run directory for a client's part, and its data. start: of adapters, the run that they stand beside."""
    adapters = isinstance(experiment.adapters, Tuning)
    if adapters != bool(start):
        what = "trains adapters, beside a model that every client has" if adapters else "sends all parameters"
        raise UserError(f"the server {what}", "Name its run: --start RUN." if adapters else "Leave --start out.")
    experiment = dataclasses.replace(experiment, data=data, start=start)
    check_reads(experiment)
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "tokenizer").mkdir()
        for name, content in said["tokenizer"].items():
            (Path(place) / "tokenizer" / name).write_bytes(content)
        if said["chat"]:
            (Path(place) / CHAT).write_bytes(said["chat"])
        tokenizer = load_tokenizer(f"{place}/tokenizer")
        dataset = dataset_of(experiment)
        dataset.place = Path(place)
        sources = dataset.open(tokenizer)
        for source in sources:
            if source.tokenizer().digest != tokenizer.digest:
                raise UserError(
                    f"{source.path}: was prepared with another tokenizer than the server's", f"Prepare with that in {folder}/tokenizer."
                )
        run = create_run(folder, experiment, sources)
        if said["chat"]:
            (run.path / CHAT).write_bytes(said["chat"])
        return run, sources


class Trainer:
    """Trains a client's part of a round."""

    def __init__(self, run: Run, sources: list, base: str, name: str):
        """base: digest of the model that adapters stand beside."""
        experiment = run.experiment
        self.added = Added(run.path / FILE)
        mesh = make_mesh(MeshShape(data=1), jax.devices()[:1])  # a local batch is small
        options = experiment.gradient
        assert isinstance(options, Gathered)
        self._experiment, self._options = experiment, options
        bound = bind_trained(experiment, mesh)
        self._frozen = frozen_of(run, mesh)
        if isinstance(experiment.adapters, Tuning) and digest_of(start_parameters(run, mesh)) != base:
            raise UserError(f"--start {experiment.start}: is another model than the server's", "Start from a copy of the same run.")
        dataset: Dataset = dataset_of(experiment)
        self._units: Units = dataset.units(sources)
        size, wanted = self._options.local_batch, self._options.rows or self._units.size
        self._most = min(wanted, self._units.size)
        self._rows = -(-self._most // size) * size
        self._own = xxhash.xxh3_64_intdigest(name.encode()) & 0x7FFFFFFF
        like = state_of(experiment, mesh, carry=False).params
        self.shapes = shapes_of(like)
        loss = bound.loss

        def train(params, rows, key, frozen):
            update, _ = clipped(local_update(with_loss(loss, frozen), params, rows, key, options), options.clip)
            return update

        self._train = on_mesh(jax.jit(train, compiler_options=compiler_options(mesh.devices.flat[0].platform)), mesh)
        self._places = jax.tree.map(lambda x: x.sharding, like)

    @property
    def count(self) -> int:
        """Rows, or documents, of this client."""
        return self._units.size

    def __call__(self, number: int, params: Arrays) -> tuple[Arrays, float, float]:
        """(the change, its weight, the mean loss) of a round. Malformed where nothing finite came of it."""
        chosen = few_of(np.arange(self._units.size), self._most, fold(self._experiment.seed, number, self._own))
        numbers = np.full(self._rows, -1, np.int64)
        numbers[: len(chosen)] = chosen
        rows = self._units.make(numbers, fold(self._experiment.seed, number, self._own, numbers))
        key = jax.random.fold_in(random_key(self._experiment.seed, number, Purpose.OBJECTIVE), self._own)
        update = jax.device_get(self._train(jax.device_put(tree_of(params), self._places), rows, key, self._frozen))
        if not update.weight > 0:
            raise Malformed("nothing finite came of the training")
        loss = update.metrics["loss"]
        return flat(update.change), min(float(update.weight), self._options.most_weight), float(loss.total / max(loss.weight, 1e-8))


def take_part(server: Server, trainer: Trainer, experiment: Experiment, name: str, said: Callable[[str], None]) -> None:
    """Do what the server asks, until it says that the last round is over.

    A round that is asked for again gets the same update. Added unseen, it goes into one sum alone (train/federated/added.py).
    """
    options = experiment.gradient
    assert isinstance(options, Gathered)
    secure: SecureClient | None = None
    sent: tuple[str, int, str] | None = None  # for which sum the last vector is: the server's run, the round, the parameters
    done: tuple[int, str, tuple[Arrays, float, float]] = -1, "", ({}, 0.0, 0.0)
    rng = np.random.default_rng()
    while True:
        asked = server("next", {})
        do, number = asked.get("do"), asked.get("round", -1)
        if do == "stop":
            return
        if do == "wait":
            continue
        if not isinstance(number, int):
            raise Malformed("the server asks for something in no round")
        try:
            answer: dict[str, Any] = {"did": do, "round": number}
            if do == "keys":
                secure, sent = SecureClient(name, number), None
                answer["bytes"] = secure.keys()
            elif do == "shares":
                answer["bytes"] = _of_this_round(secure, number).shares(asked["keys"])
            elif do == "unmask":
                answer["bytes"] = _unmasked(_of_this_round(secure, number), sent, asked, options.network.least, trainer.added)
            elif do == "train":
                params = checked(asked.get("params"), trainer.shapes, "the server's parameters")
                digest = digest_of(tree_of(params))
                if options.secure:
                    sent = str(asked["run"]), number, digest
                    trainer.added.check(*sent, _names(asked["among"]))
                if done[:2] != (number, digest):  # else the server asks again
                    with _alive(server):
                        done = number, digest, trainer(number, params)
                change, weight, loss = done[2]
                if options.secure:
                    answer["vector"] = _of_this_round(secure, number).masked(
                        vector_of(change, weight, loss, asked["clients"], options, rng), asked["shares"]
                    )
                else:
                    answer |= {"change": change, "weight": weight, "loss": loss}
                said(f"round {number}: loss {loss:.4f} over {trainer.count:,} rows")
            else:
                raise Malformed(f"the server asks for {do!r}")
            server("send", answer)
        except (Malformed, KeyError) as error:
            said(f"round {number}: not taken part in: {error if isinstance(error, Malformed) else f'no {error}'}")
            server("skip", {})
            time.sleep(0.5)


def _unmasked(secure: SecureClient, sent: tuple[str, int, str] | None, asked: dict[str, Any], least: int, added: Added) -> dict[str, bytes]:
    """The shares by which the sum of a set of clients comes out. Malformed for a set that is too small, is not the one that the neighbours
    are asked for, or is another than before."""
    among, survivors, dropped = (_names(asked[name]) for name in ("among", "survivors", "dropped"))
    if sent is None or secure.name not in among or not {*survivors} <= {*among} or {*dropped} & {*among}:
        raise Malformed("the server asks for shares of another sum than its own")
    if len(among) < least:
        raise Malformed(f"{len(among)} clients are too few to hide among, and {least} are agreed")
    added.check(*sent, among)
    told = secure.unmask(survivors, dropped)
    added.keep(*sent, among)
    return told


def _names(found: Any) -> list[str]:
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found) or len({*found}) < len(found):
        raise Malformed("the server names no clients")
    return found


def _of_this_round(secure: SecureClient | None, number: Any) -> SecureClient:
    if secure is None or secure.round != number:
        raise Malformed("this client joined in the middle")
    return secure


@contextlib.contextmanager
def _alive(server: Server) -> Iterator[None]:
    """Tell the server now and then that a client is at work."""
    over = threading.Event()

    def tell() -> None:
        while not over.wait(ALIVE):
            with contextlib.suppress(UserError):
                server("alive", {})

    thread = threading.Thread(target=tell, name="alive", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
