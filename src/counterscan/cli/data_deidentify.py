"""``counterscan data deidentify``: DICOM files without their patients."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from counterscan.cli.output import complain, emit, explain, folder_for, progress, write_run
from counterscan.errors import CounterscanError, DataError, WordsError


def deidentify(
    source: Annotated[Path, typer.Argument(help="A folder of DICOM files, at any depth.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files without patients.")],
    key: Annotated[
        Path | None, typer.Option(help="A secret file: the same key gives the same pseudonyms. Default: a new one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Copy DICOM images with headers cut down to a list of harmless attributes; pixels stay as they are.

    Example: counterscan data deidentify export -o clean
    """
    import secrets

    from counterscan.data.readers.dicom import files
    from counterscan.imaging.deidentify import deidentify as without_patient

    if not source.is_dir():
        raise WordsError(f"{source}: no such folder")
    folder = folder_for(output)
    if folder.resolve().is_relative_to(source.resolve()):  # files with and without patients would lie together
        raise WordsError(f"{folder}: is in the folder with the patients, {source}; name one outside it after -o")
    try:
        secret = key.read_bytes() if key else secrets.token_bytes(32)
    except OSError as error:
        raise WordsError(f"{key}: {error.strerror}") from None
    if len(secret) < 16:
        raise WordsError(f"{key}: a key of {len(secret)} bytes; at least 16 are needed")
    done = failed = unsaid = 0
    paths = list(files(source))
    if not paths:
        raise DataError(f"{source}: holds no DICOM file")
    with progress(source.name) as report:
        for number, path in enumerate(paths, 1):
            try:
                unsaid += not without_patient(path, folder, secret)[1]
                done += 1
            except CounterscanError as error:
                complain(explain(error, path))
                failed += 1
            report(number, len(paths))
    summary = {"folder": str(folder), "items": done, "failed": failed, "pixels_not_declared_clean": unsaid}
    if done:
        write_run(folder, "data deidentify", {"source": source, "key": key}, summary)
    text = f"{done} files in {folder}"
    if unsaid:
        text += f"; {unsaid} do not say whether text is burnt into their pixels: look at them"
    emit(summary, as_json, text)
    if failed:
        complain(f"{failed} of {len(paths)} files were not copied")
        raise typer.Exit(1)
