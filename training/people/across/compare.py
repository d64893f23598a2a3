"""`python -m training identify-across`: DEPER beside the classical classifiers, data set by data set."""

import json
from collections.abc import Sequence
from pathlib import Path

from pydeper.errors import InvalidArgumentError
from training.config import TrainingConfig, load_config
from training.distributed.process_group import open_accelerator
from training.evaluation.report import check_reports, format_table, write_report
from training.people import identify
from training.people.accuracy import DEPER, Table
from training.people.across.data_sets import DataSet
from training.people.score_fusion import MODALITIES
from training.people.seen_people import CLASSICAL
from training.preparation.prepared_folder import SAMPLES

REPORT = "identification-across"

_DIFFERENCE = "difference"


def run(
    data_sets: Sequence[DataSet],
    config_file: Path,
    changes: Sequence[str],
    out: Path,
    report: Path,
    command: str,
) -> None:
    """Writes the data sets, runs `identify` on each, and reports all of them in one table.

    Args:
        data_sets: One or more.
        config_file: The training's configuration, whose `name` and `samples` are those of each data set.
        changes: Settings that differ from it, as KEY=VALUE.
        out: Keeps each data set, its trainings and its own report in a folder of its own.
        report: Gets `identification-across.json` and `.md`.
        command: The command line, for the report.

    Raises:
        InvalidArgumentError: There are no data sets; or see `training.people.identify.run`.
    """
    if not data_sets:
        raise InvalidArgumentError("there is no data set to measure on; name one with --data, --narrations or --groups")
    check_reports(report, [REPORT])
    rows: Table = {}
    about: dict[str, str] = {}
    behind = []
    for data_set in data_sets:
        folder = out / data_set.name
        folder.mkdir(parents=True, exist_ok=True)
        data_set.write(folder)
        own = [f"name={json.dumps(data_set.name)}", f"samples={json.dumps(str(folder / SAMPLES))}"]
        config = load_config(TrainingConfig, config_file, [*own, *changes])
        folds = [data_set.folds] if data_set.folds else []
        protocols = identify.Protocols(selection_folds=data_set.selection_folds, folds=folds)
        outcomes = identify.run(config, folder / "trainings", folder / "results", protocols, changes)
        outcome = outcomes[protocols.suffixes()[-1]]
        rows |= _rows(data_set.title, outcome.rows)
        about[data_set.title] = _about(outcome)
        if outcome.verdict:
            behind.append(data_set.title)
    title = "Subject identification across data sets"
    title += f"; behind a classical system in: {', '.join(behind)}" if behind else ""
    facts = {
        "command": command,
        "intervals": "95 %, bootstrap over people",
        "DEPER": f"{config_file.name}, trained once, mixed precision {open_accelerator(cpu=True).mixed_precision}",
        **about,
    }
    write_report(report, REPORT, rows, title=title, facts=facts)
    print(f"\n{title}\n{format_table(rows)}")


def _about(outcome: identify.Outcome) -> str:
    """A data set's size, what was chosen for it, and whether its descriptions repeat, in one line."""
    facts = outcome.facts
    sizes = " + ".join(f"{training} / {held_out}" for training, held_out in facts["samples, training / held out"])
    line = f"{facts['people']} people, {facts['protocol']}, samples for training / held out {sizes}"
    line += f"; chosen: {facts['chosen within the training split']}"
    repeated = facts.get(identify.REPEATED)
    return f"{line}; {identify.REPEATED}: {repeated}" if repeated else line


def _rows(title: str, table: Table) -> Table:
    """A row for each modality; the last columns are of as many samples as the data set's queries have."""
    rows: Table = {}
    for modality in MODALITIES:
        figures = {system: table[f"{system}, {modality}"] for system in (DEPER, CLASSICAL, _DIFFERENCE)}
        rows[f"{title}, {modality}"] = {
            f"{system}, {column}": list(of_system.values())[at]
            for column, at in (("1 sample", 0), ("most samples", -1))
            for system, of_system in figures.items()
            if of_system
        }
    return rows
