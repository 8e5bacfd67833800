"""``safekd cache build | verify | info``: their options.  Heavy imports happen inside commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .terminal import err, out

cache_app = typer.Typer(
    help="What teachers said, on disk: asked once, read in any order afterwards.", no_args_is_help=True
)

Cache = Annotated[Path, typer.Argument(help="folder of the cache, or of one teacher in it")]
Json = Annotated[bool, typer.Option("--json", help="print JSON, for other programs")]


@cache_app.command("build")
def build_cache_command(
    output: Annotated[Path, typer.Argument(help="folder of the cache; one that is there is gone on with")],
    model: Annotated[
        list[str],
        typer.Option(help="folder of a causal language model, or its name on the hub; repeatable, each a teacher"),
    ],
    data: Annotated[
        list[Path], typer.Option(help="texts: .txt, or .jsonl, .csv, .tsv, .parquet with a column of them; repeatable")
    ],
    kind: Annotated[
        Literal["hidden", "topk"],
        typer.Option(help="hidden: hidden states, and the head once; topk: most probable tokens"),
    ] = "hidden",
    k: Annotated[int, typer.Option("-k", min=1, max=10**6, help="tokens kept, of topk")] = 256,
    dtype: Annotated[
        Literal["bfloat16", "float16", "float32"] | None,
        typer.Option(help="of numbers; bfloat16, of topk float16, if left out"),
    ] = None,
    column: Annotated[str, typer.Option(help="of texts, or of lists of token numbers")] = "text",
    sample_by: Annotated[
        Literal["line", "paragraph", "document"], typer.Option(help="what one text of a .txt file is")
    ] = "line",
    length: Annotated[
        int, typer.Option(min=2, max=10**6, help="tokens of an example at most; longer texts become several")
    ] = 512,
    end: Annotated[bool, typer.Option("--end", help="put the tokenizer's end token after each text")] = False,
    batch_size: Annotated[
        int, typer.Option(min=1, max=10**6, help="examples that a teacher is asked about at a time")
    ] = 8,
    shard_mib: Annotated[int, typer.Option("--shard-mib", min=1, max=2**20, help="size of a file, MiB")] = 256,
    device: Annotated[str | None, typer.Option(help="where teachers are asked: cpu, cuda, cuda:1")] = None,
    model_dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"], typer.Option(help="of the models; auto: as they are stored")
    ] = "auto",
    name: Annotated[str | None, typer.Option(help="what to call the teacher; of one --model")] = None,
    revision: Annotated[str | None, typer.Option(help="branch, tag or commit on the hub; of one --model")] = None,
    gguf: Annotated[str | None, typer.Option(help="GGUF file in the folder; of one --model")] = None,
    adapter: Annotated[str | None, typer.Option(help="folder of a peft adapter; of one --model")] = None,
    prompt: Annotated[str | None, typer.Option(help="text that stands before every example; of one --model")] = None,
    resume: Annotated[bool, typer.Option(help="go on with what is there, or refuse it")] = True,
    json: Json = False,
) -> None:
    """Ask teachers about texts, and store what they say.

    Killed or stopped, the same command goes on after the last whole file.  More texts, and more teachers, are added.

    safekd cache build cache --model ./teacher --data corpus.jsonl --length 512

    safekd cache build cache --model ./a --model ./b --data book.txt --sample-by document --kind topk -k 64

    Exit code 0: done; 2: bad input, or a cache of another teacher, which is named.
    """
    from ._cache_command import BuildOptions, show_build

    own = {"name": name, "revision": revision, "gguf_file": gguf, "adapter": adapter, "prompt": prompt}
    texts = {"column": column, "sample_by": sample_by}
    stored = {
        "kind": kind,
        "k": k,
        "dtype": dtype,
        "batch_size": batch_size,
        "shard_bytes": shard_mib << 20,
        "resume": resume,
    }
    loaded = {"device": device, "dtype": model_dtype, **{key: value for key, value in own.items() if value is not None}}
    options = BuildOptions(model, data, texts, {"length": length, "end": end}, stored, loaded)
    raise typer.Exit(show_build(out, err, output, options, as_json=json))


@cache_app.command("verify")
def verify_cache_command(cache: Cache, json: Json = False) -> None:
    """Compare every file with the hash that was written beside it.

    safekd cache verify cache

    Exit code 0: all is as it was written; 1: something was changed, and is named; 2: no cache.
    """
    from ._cache_command import show_cache_verification

    raise typer.Exit(show_cache_verification(out, cache, as_json=json))


@cache_app.command("info")
def show_cache_command(cache: Cache, json: Json = False) -> None:
    """Show which teachers a cache holds, of which revision, how many tokens, and how many bytes each token takes.

    safekd cache info cache --json
    """
    from ._cache_command import show_cache

    raise typer.Exit(show_cache(out, cache, as_json=json))
