from pathlib import Path

import pytest

from localgcp.build.dockerfile import BuildFailed, Context, Interpreter, Stage, parse, substitute


@pytest.fixture
def context(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    for name in ("app/main.py", "app/cache/x.pyc", "notes.txt", "more.txt", "secret.env"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (root / "app" / "run.sh").write_text("#!/bin/sh\n")
    (root / "app" / "run.sh").chmod(0o755)
    (root / ".dockerignore").write_text("**/*.pyc\n*.env\n!keep.env\n")
    return root


def build(context: Path, dockerfile: str, log: list[str] | None = None, **arguments: str) -> Stage:
    lines = log if log is not None else []
    scratch = context.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    interpreter = Interpreter(
        Context(context), arguments=arguments, scratch=scratch, find_base=lambda _: None, log=lines.append
    )
    return interpreter.build(dockerfile)


def files(stage: Stage) -> list[str]:
    return sorted(path for path, file in stage.files.items() if not file.is_directory)


def test_files_are_copied_as_docker_does(context: Path) -> None:
    stage = build(
        context,
        "FROM scratch\nWORKDIR /srv\nCOPY app app/\nCOPY *.txt ./\n"
        "COPY notes.txt /etc/renamed\nCOPY app/main.py /bin/\n",
    )

    assert files(stage) == [
        "/bin/main.py",
        "/etc/renamed",
        "/srv/app/main.py",
        "/srv/app/run.sh",
        "/srv/more.txt",
        "/srv/notes.txt",
    ]
    assert stage.files["/srv/app/run.sh"].mode == 0o755
    assert stage.files["/srv/app/main.py"].mode == 0o644


def test_what_is_ignored_cannot_be_copied(context: Path) -> None:
    with pytest.raises(BuildFailed, match=r'"secret.env": not found in the build context'):
        build(context, "FROM scratch\nCOPY secret.env /\n")


def test_a_context_cannot_be_left(context: Path) -> None:
    (context.parent / "outside").write_text("x")

    with pytest.raises(BuildFailed, match=r"not found"):
        build(context, "FROM scratch\nCOPY ../outside /\n")


def test_run_is_left_out_and_the_log_says_so(context: Path) -> None:
    log: list[str] = []

    build(context, "FROM python:3.12\nRUN pip install -r requirements.txt && \\\n    touch /done\n", log)

    assert log == [
        "Step 1/2 : FROM python:3.12",
        " ---> python:3.12 is not fetched: the process runtime has no base images. Programs such as python come from"
        " the environment that localgcp itself runs in.",
        "Step 2/2 : RUN pip install -r requirements.txt &&     touch /done",
        " ---> not executed: the process runtime carries out no RUN",
    ]


def test_stages_copy_from_each_other_and_what_run_would_have_made_is_named(context: Path) -> None:
    log: list[str] = []
    dockerfile = (
        "FROM node AS build\nCOPY app /src\nRUN npm run build\n"
        "FROM scratch\nCOPY --from=build /src/main.py /\nCOPY --from=build /dist /dist\n"
    )

    stage = build(context, dockerfile, log)

    assert files(stage) == ["/main.py"]
    assert " ---> not copied: /dist is not in stage build, of which not every step was carried out" in log


def test_configuration_is_that_of_the_instructions(context: Path) -> None:
    stage = build(
        context,
        'ARG BASE=scratch\nFROM ${BASE}\nARG VERSION=1\nENV A=1 B="two words" C=$VERSION\nENV OLD form here\n'
        'LABEL version=$VERSION\nEXPOSE 8080\nUSER nobody\nENTRYPOINT ["python", "-m"]\nCMD ["app"]\n',
        VERSION="7",
    )

    assert stage.config == {
        "Env": ["A=1", "B=two words", "C=7", "OLD=form here"],
        "Labels": {"version": "7"},
        "ExposedPorts": {"8080/tcp": {}},
        "User": "nobody",
        "Entrypoint": ["python", "-m"],
        "Cmd": ["app"],
    }


def test_the_shell_form_runs_in_a_shell(context: Path) -> None:
    assert build(context, "FROM scratch\nCMD exec app $PORT\n").config["Cmd"] == ["/bin/sh", "-c", "exec app $PORT"]


@pytest.mark.parametrize(
    ("dockerfile", "message"),
    [
        ("COPY a b\n", "has no FROM"),
        ("FROM scratch\nCOPPY a b\n", "line 2: unknown instruction: COPPY"),
        ("FROM scratch\nCOPY --exclude=x a b\n", "COPY --exclude is not understood"),
        ("FROM scratch\nADD https://example.com/a /\n", "reaches no other host"),
        ("FROM scratch\nCOPY missing /\n", '"missing": not found in the build context'),
    ],
)
def test_what_cannot_be_carried_out_fails_with_its_name(context: Path, dockerfile: str, message: str) -> None:
    with pytest.raises(BuildFailed, match=message):
        build(context, dockerfile)


def test_comments_continuations_and_here_documents_are_read() -> None:
    text = "# a comment\nFROM scratch\nRUN a \\\n# in between\n  b\nCOPY <<END /x\nFROM inside\nEND\nCMD\tx\n"

    steps = parse(text)

    assert [(step.line, step.keyword, step.value) for step in steps] == [
        (2, "FROM", "scratch"),
        (3, "RUN", "a   b"),
        (6, "COPY", "<<END /x"),
        (9, "CMD", "x"),
    ]
    assert steps[2].documents == {"END": "FROM inside\n"}


@pytest.mark.parametrize(
    ("text", "result"),
    [("$A/${A}", "1/1"), ("${B:-x}", "x"), ("${A:+y}${B:+y}", "y"), (r"\$A", "$A"), ("$B", "")],
)
def test_variables_are_substituted(text: str, result: str) -> None:
    assert substitute(text, {"A": "1"}) == result
