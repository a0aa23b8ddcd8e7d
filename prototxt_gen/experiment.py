"""One experiment: network, data set and schedule together, as the files that go into its folder."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from prototxt_gen.architecture import Options, Plan, make_plan
from prototxt_gen.command_line import Invalid, project_root, unknown
from prototxt_gen.datasets import Dataset, find_dataset
from prototxt_gen.files import exists, write_files
from prototxt_gen.network import deploy_net, train_val_net
from prototxt_gen.proto import to_text
from prototxt_gen.readme import readme
from prototxt_gen.solver import batch_of_test, make_solver
from prototxt_gen.summary import summarize
from prototxt_gen.to_stock import to_stock

ENGINES = {"fused": "FusedNesterov", "stock": "Nesterov"}  # and the solver types that go with them


@dataclass(frozen=True)
class Experiment:
    """What make_net's options say. out: its folder; data_dir: where data_prep's folders are; label: its own name."""

    arch: str
    options: Options = field(default_factory=Options)
    dataset: str = "cifar100"
    batch_size: int = 64
    test_batch_size: int | None = None
    epochs: float | None = None
    seed: int = 1
    engine: str = "fused"
    gpu: bool = False
    out: Path | None = None
    data_dir: Path | None = None
    label: str | None = None

    @property
    def name(self) -> str:
        """Network and data set, then what differs from the defaults: igcv2_c64_d20_cifar100."""
        if self.label:
            return self.label
        o = self.options
        parts = [self.arch.replace("-", "_"), f"c{o.width}", f"d{o.depth}", Path(self.dataset).name.replace("-", "_")]
        if o.layers is not None:
            parts.append(f"l{o.layers}")
        if o.channels_per_branch is not None:
            parts.append("k" + "_".join("x".join(map(str, ks)) for ks in o.channels_per_branch))
        if o.first_width is not None:
            parts.append(f"first{o.first_width}")
        if o.downsampling is not None:
            parts.append("downsampling" if o.downsampling else "plain")
        if o.layers_from != "each-stage":
            parts.append("first_stage")
        if self.engine != "fused":
            parts.append(self.engine)
        return "_".join(parts)

    @property
    def folder(self) -> Path:
        return Path(self.out).absolute() if self.out else project_root() / "experiments" / self.name


@dataclass(frozen=True)
class Files:
    """The texts of an experiment's files by their names, and its summary."""

    folder: Path
    texts: dict[str, str]
    summary: dict

    def write(self, force: bool = False) -> list[Path]:
        """Writes the files, all or none, and returns those that are new. Snapshots and other files stay.

        Raises Invalid if one is there with other contents, unless `force`.
        """
        new = {self.folder / name: text for name, text in self.texts.items() if not _holds(self.folder / name, text)}
        different = [path for path in new if exists(path)]
        if different and not force:
            raise Invalid(f"{different[0]} is there already with other contents: --force replaces it")
        write_files({path: text.encode() for path, text in new.items()})
        return list(new)


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_text() == text
    except (OSError, UnicodeDecodeError):
        return False


def build(experiment: Experiment) -> Files:
    """Everything about an experiment, with nothing written yet. Raises Invalid."""
    if experiment.engine not in ENGINES:
        raise unknown("engine", experiment.engine, ENGINES)
    dataset = find_dataset(experiment.dataset)
    _check_sizes(experiment, dataset)
    plan = make_plan(experiment.arch, experiment.options, dataset.channels, dataset.first_stride)
    epochs = dataset.epochs if experiment.epochs is None else experiment.epochs
    folder, data = _paths(experiment, dataset)
    batch = batch_of_test(dataset.test, experiment.test_batch_size)
    sources = {"TRAIN": f"{data}/train_lmdb", "TEST": f"{data}/test_lmdb"}
    nets = _nets(experiment, plan, dataset, sources, batch)
    solver = make_solver(
        f"{folder}/train_val.prototxt",
        f"{folder}/{experiment.name}",
        dataset,
        experiment.batch_size,
        batch,
        epochs,
        experiment.seed,
        experiment.gpu,
        ENGINES[experiment.engine],
    )
    texts = {name: to_text(net) for name, net in nets.items()}
    texts["solver.prototxt"] = to_text(solver)
    summary = {
        "name": experiment.name,
        "arch": experiment.arch,
        **asdict(experiment.options),
        "dataset": dataset.name,
        "engine": experiment.engine,
        "seed": experiment.seed,
        **summarize(
            experiment.arch,
            experiment.options,
            plan,
            texts["train_val.prototxt"],
            (dataset.channels, dataset.size, dataset.size),
        ),
        "schedule": {
            "epochs": epochs,
            "batch_size": experiment.batch_size,
            "max_iter": solver.max_iter,
            "stepvalue": list(solver.stepvalue),
            "test_iter": solver.test_iter[0],
            "test_batch_size": batch,
            "test_interval": solver.test_interval,
            "snapshot": solver.snapshot,
        },
        "solver": f"{folder}/solver.prototxt",
    }
    texts["readme.md"] = readme(summary)
    return Files(experiment.folder, texts, summary)


def _nets(experiment: Experiment, plan: Plan, dataset: Dataset, sources: dict[str, str], test_batch_size: int):
    title = f"{plan.title} D{experiment.options.depth} {dataset.name}"
    nets = {
        "train_val.prototxt": train_val_net(
            title, plan, dataset, sources, experiment.batch_size, test_batch_size, experiment.seed
        ),
        "deploy.prototxt": deploy_net(title, plan, dataset),
    }
    return {name: to_stock(net) for name, net in nets.items()} if experiment.engine == "stock" else nets


def _check_sizes(experiment: Experiment, dataset: Dataset):
    if not 1 <= experiment.batch_size <= dataset.train:
        raise Invalid(f"--batch-size {experiment.batch_size}: 1 to the {dataset.train} training images are allowed")
    if experiment.epochs is not None and not experiment.epochs > 0:
        raise Invalid(f"--epochs {experiment.epochs:g}: more than 0 are needed")
    if not 0 <= experiment.seed < 2**31:
        raise Invalid(f"--seed {experiment.seed}: 0 to {2**31 - 1} are allowed")


def _paths(experiment: Experiment, dataset: Dataset) -> tuple[str, str]:
    """Folder and data in the prototxt: relative to the project's root, where `caffe train` runs, or absolute."""
    root = project_root()
    folder = experiment.folder
    data = dataset.folder or Path(experiment.data_dir or root / "data").absolute() / dataset.name
    if folder.is_relative_to(root) and (data.is_relative_to(root) or experiment.data_dir):
        folder, data = folder.relative_to(root), data.relative_to(root) if data.is_relative_to(root) else data
    return folder.as_posix(), data.as_posix()
