"""``medvar replay``: makes a written image again and compares the pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medvar_engine.cli.console import print_message, print_result


def replay(
    file: Annotated[Path, typer.Argument(help="A PNG, NIfTI or DICOM file that medvar wrote.")],
    bundle: Annotated[str | None, typer.Option(help="The bundle that made it; the shipped one by default.")] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Device that runs the networks.")] = "auto",
) -> None:
    """Make an image again from the information in its file, and compare every pixel."""
    from medvar_engine.backends.onnx import OnnxBackend
    from medvar_engine.bundle.read import open_bundle
    from medvar_engine.errors import MedvarError
    from medvar_engine.generate.generator import Generator
    from medvar_engine.generate.replay import replay as again
    from medvar_engine.write.burn_in import marked
    from medvar_engine.write.compare import differing_pixels
    from medvar_engine.write.marks import Marks
    from medvar_engine.write.output_image import OutputImage
    from medvar_engine.write.provenance import read_about_pixels, read_traces

    traces = read_traces(file)
    model, marks = open_bundle(bundle), Marks.from_dict(read_about_pixels(file))
    generator = Generator(OnnxBackend(model, device=device))
    slices = []
    for trace in traces:
        generation = again(generator, trace)
        if not generation.complete:
            raise MedvarError(
                f"{file} describes an unfinished image: its tokens are the same, but there is no image to compare."
            )
        image = OutputImage.of(model, generation.trace(0), generator.image(generation)[0])
        slices.append(marked(image, marks))
    print_message(f"every token is the same, on {generator.backend.info.provider}")
    if different := differing_pixels(file, *slices):
        raise MedvarError(
            f"{different} pixels of {file} differ from the image made again: the file was changed, is a contact "
            "sheet, or was decoded on another backend or device."
        )
    print_result(f"{file}: the same image{f', {len(slices)} slices' if len(slices) > 1 else ''}, pixel for pixel")
