"""The dependencies of each role, read from `cargo metadata`, offline."""
import json
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent

# A role and the features that its program asks for.
ROLES = {
    "phone": "holder",
    "desktop": "issuer,qr",
    "agent": "agent",
    "agent with a ledger in a file": "agent,redb",
    "narrowing alone": "attenuate",
    "default features": "default",
}


def cargo(*arguments):
    """What cargo prints, for every platform."""
    command = ["cargo", *arguments, "--locked", "--offline"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"{result.stderr}`cargo fetch --locked` gets the crates of every platform")
    return result.stdout


def metadata(*arguments):
    return json.loads(cargo("metadata", "--format-version", "1", *arguments))


def tree(*arguments):
    """Name and version of each package that is compiled. `cargo metadata` lists some that no feature asks for."""
    printed = cargo("tree", "--target", "all", "--prefix", "none", "--format", "{p}", *arguments)
    return {(words[0], words[1].removeprefix("v")) for words in map(str.split, printed.splitlines()) if words}


def all_packages():
    """Every package that something here can need, with any feature, on any platform, for the tests too."""
    needed = tree("--workspace", "--all-features", "--edges", "all")
    packages = metadata("--all-features")["packages"]
    return [package for package in packages if (package["name"], package["version"]) in needed]


def is_built(dependency):
    """Whether it is compiled into a build: not for tests alone, nor for model-checked ones alone."""
    kinds = dependency["dep_kinds"]
    return any(kind["kind"] != "dev" and kind["target"] != "cfg(sessioncap_loom)" for kind in kinds)


def of_role(features):
    """The library with these features: its package, and every package that its build compiles, by id."""
    arguments = ["--no-default-features", "--features", features]
    # Dependencies of tests are part of no build.
    needed = tree("--package", "sessioncap", "--edges", "normal,build", *arguments)
    found = metadata(*arguments)
    packages = {
        package["id"]: package
        for package in found["packages"]
        if (package["name"], package["version"]) in needed
    }
    nodes = {node["id"]: node for node in found["resolve"]["nodes"]}
    root = next(id for id, package in packages.items() if package["name"] == "sessioncap")
    waiting, needs = [root], {}
    while waiting:
        id = waiting.pop()
        if id not in needs:
            needs[id] = sorted({each["pkg"] for each in nodes[id]["deps"] if is_built(each) and each["pkg"] in packages})
            waiting += needs[id]
    return packages[root], {id: packages[id] for id in needs}, needs
