"""`omnia federate`: learning whose data stays where it is."""

import dataclasses
import os
from collections import Counter
from pathlib import Path

import tyro

from data.errors import UserError
from data.files import json_files
from train.kinds import Data
from train.runs.directory import is_run
from train.verbs.arguments import below, parse, start_jax, value_of


def federate(arguments: list[str]) -> int:
    verbs = {
        "server": (server, "CONFIG", "train with clients that come over the network; takes all options of omnia train"),
        "client": (client, "", "train for a server on files that stay here"),
        "keys": (keys, "", "make the certificate of a server and a token for each client"),
        "split": (split, "FILE", "give the rows of a file to clients, to simulate them or to try a deployment"),
    }
    return below("federate", arguments, verbs)


# ------------------------------------------------------------------------------------------------------------------- network


def server(arguments: list[str]) -> int:
    """A run whose gradient comes from clients: `omnia train` with --gradient gathered, saved at each round, which waits for as long as it
    must."""
    from train.verbs.train import train

    given = {argument.partition("=")[0].replace("_", "-") for argument in arguments}
    if {"-h", "--help"} & given:
        return train([*arguments, "--gradient", "gathered"])
    resumed = bool(arguments) and is_run(Path(arguments[0]))
    usual = {"--checkpoints.every": "1", "--faults.stall-seconds": "0"} | ({} if resumed else {"--gradient": "gathered"})
    return train([*arguments, *(word for name, value in usual.items() if name not in given for word in (name, value))])


@dataclasses.dataclass(frozen=True)
class Keys:
    """Make what a server and its clients know each other by. Give each client its .token and server.pem, and nothing else."""

    output: str
    """Folder to make: for --gradient.network.folder."""
    clients: tuple[str, ...]
    """Names of the clients."""
    host: tuple[str, ...] = ("localhost", "127.0.0.1")
    """Names and addresses by which clients reach the server."""
    days: int = 365
    """How long the certificate is good for."""


def keys(arguments: list[str]) -> int:
    o = parse(Keys, "federate keys", arguments)
    if not o.clients or not o.host or o.days < 1:
        raise UserError("omnia federate keys: a name, a host or a day at least is needed", "Give some.")
    from train.federated.network import make_keys

    make_keys(Path(o.output), o.host, o.clients, o.days)
    print(f"{o.output}: for the server. Each client gets its file client-NAME.token, and server.pem.")
    return 0


@dataclasses.dataclass(frozen=True)
class Client:
    """Train for a server on files that stay here. What leaves is how parameters changed, a weight and a mean loss."""

    run_dir: str
    """Folder for this client's part: its settings, and no parameters that others trained."""
    data: Data
    """This client's files: the kind of data that the server trains on, such as --data.files FILE."""
    server: str = "localhost:8470"
    """HOST:PORT."""
    token: str = ""
    """File client-NAME.token of `omnia federate keys`. Empty: no encryption, for a server on this machine alone."""
    certificate: str = ""
    """The server's server.pem. Empty: the one beside the token."""
    name: str = ""
    """Without a token: what this client is called."""
    start: str = ""
    """With adapters: the run of the model that they stand beside, which must be the server's."""
    patience: float = 600.0
    """Seconds for which a server that is not reached is tried again."""


def client(arguments: list[str]) -> int:
    if {"-h", "--help"} & {*arguments}:
        parse(Client, "federate client", arguments)
    from train.federated import client as federated_client
    from train.federated.network import Server, read_token

    start_jax(devices=False)
    token, name = value_of("--token", arguments), value_of("--name", arguments)
    if bool(token) == bool(name):
        raise UserError("omnia federate client: --token FILE or --name NAME is needed, and not both", "Give one.")
    identity = read_token(token) if token else f"{name} -"
    address, certificate = value_of("--server", arguments) or Client.server, None
    if token:
        path = Path(value_of("--certificate", arguments) or Path(token).parent / "server.pem")
        if not path.is_file():
            raise UserError(f"{path}: is no file", "Give the server's server.pem: --certificate FILE.")
        certificate = path.read_bytes()
    try:
        patience = float(value_of("--patience", arguments) or Client.patience)
    except ValueError as error:
        raise UserError(f"omnia federate client: --patience: {error}", "Give a number of seconds.") from None
    stub = Server(address, identity, certificate, patience)
    try:
        experiment, said = federated_client.joined(stub)
        o = parse(Client, "federate client", arguments, Client(tyro.MISSING, experiment.data))
        own = identity.split()[0]
        run, sources = federated_client.made_run(o.run_dir, experiment, said, o.data, o.start)
        trainer = federated_client.Trainer(run, sources, said.get("base", ""), own)
        print(f"{own}: {trainer.count:,} rows, for {experiment.steps} rounds of {address}")
        federated_client.take_part(stub, trainer, experiment, own, print)
    except KeyboardInterrupt:
        return 130
    finally:
        stub.close()
    return 0


# --------------------------------------------------------------------------------------------------------------------- split


@dataclasses.dataclass(frozen=True)
class Split:
    """Give each row of a file to a client: by a column, or at random with labels shared out unevenly."""

    file: tyro.conf.Positional[str]
    """.csv, .tsv, .jsonl, .json or .parquet."""
    output: str
    """A .csv or .jsonl file, which gets a column `client`; or a folder, which gets a file for each client."""
    by: str = ""
    """Column whose values are the clients, instead of a draw."""
    clients: int = 10
    """How many there shall be, without `by`."""
    alpha: float = 0.5
    """Of Dirichlet's distribution, by which each label is shared out: 100 makes clients alike, 0.1 gives most of them one or two labels."""
    label: str = "label"
    """Column of the labels."""
    seed: int = 0
    """Of the draw."""
    json: bool = False
    """Print one line of JSON."""


CLIENT = "client"


def split(arguments: list[str]) -> int:
    o = parse(Split, "federate split", arguments)
    if o.clients < 1 or not o.alpha > 0:
        raise UserError("omnia federate split: --clients is below 1, or --alpha is not above 0", "Give 1 or more, and a number above 0.")
    from data.records.record import lacks
    from data.records.rows import read_records
    from data.records.writing import write_records
    from train.federated.split import dirichlet

    records = read_records(o.file)
    column = o.by or o.label
    values = []
    for record in records:
        if record.get(column) is None:
            raise lacks(record, column)
        values.append(str(record[column]))
    owners = values if o.by else [f"{CLIENT}-{number:03d}" for number in dirichlet(values, o.clients, o.alpha, o.seed)]
    sizes = dict(sorted(Counter(owners).items()))
    if o.output.endswith((".csv", ".jsonl")):
        write_records(o.output, [record | {CLIENT: owner} for record, owner in zip(records, owners, strict=True)])
    else:
        names = {owner: _file_name(owner) for owner in sizes}
        if len({*names.values()}) < len(names):
            raise UserError(f"{o.file}: two values of {column!r} give the same name of a file", "Name a .jsonl file as --output.")
        if os.path.isfile(o.output):
            raise UserError(f"--output {o.output}: is a file", "Name a folder, or a file that ends with .csv or .jsonl.")
        os.makedirs(o.output, exist_ok=True)
        if os.listdir(o.output):
            raise UserError(f"--output {o.output}: holds other things", "Name an empty folder.")
        for owner, name in names.items():
            own = [record for record, of in zip(records, owners, strict=True) if of == owner]
            write_records(os.path.join(o.output, name), own)
    if o.json:
        print(json_files.dumps({"output": o.output, "rows": len(records), "clients": sizes}))
    else:
        smallest, largest = min(sizes.values()), max(sizes.values())
        print(f"{o.output}: {len(records):,} rows of {len(sizes):,} clients, who have from {smallest:,} to {largest:,}")
    return 0


def _file_name(owner: str) -> str:
    """A client's name as that of a file."""
    return "".join(one if one.isalnum() or one in "-_." else "_" for one in owner).strip(".")[:100] + ".jsonl"
