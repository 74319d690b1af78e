"""The API's description says what the code does: every route, every parameter read, every body decoded."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import schemathesis

import server.web
from server.web import openapi
from server.web.api import search_params
from server.web.api.routes import ROUTES
from server.web.description import Doc, doc_of
from server.web.route import Route
from server.web.translations import FAILURES

STATIC = Path(server.web.__file__).parent / "static"
NAMES = [f"{route.method} {route.path}" for route in ROUTES]


def doc(route: Route) -> Doc:
    found = doc_of(route.handler)
    assert found is not None, f"{route.method} {route.path}: put @describe over {route.handler.__qualname__}"
    return found


def calls(route: Route) -> Iterator[ast.Call]:
    """The calls in a handler and in the functions of its own module that it calls."""
    module = inspect.getmodule(route.handler)
    functions = {
        f.__name__: f
        for _, f in inspect.getmembers(module, inspect.isfunction)
        if f.__module__ == route.handler.__module__
    }
    waiting, seen = [route.handler.__name__], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in functions:
            continue
        seen.add(name)
        for node in ast.walk(ast.parse(inspect.getsource(functions[name]))):
            if isinstance(node, ast.Call):
                yield node
                waiting += [node.func.id] if isinstance(node.func, ast.Name) else []


def value(route: Route, node: ast.expr) -> Any:
    """What a name in a handler's module stands for."""
    return eval(compile(ast.Expression(node), "<name>", "eval"), vars(inspect.getmodule(route.handler)))


def method(call: ast.Call) -> tuple[str, str]:
    if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
        return call.func.value.id, call.func.attr
    return "", ""


@pytest.mark.parametrize("route", ROUTES, ids=NAMES)
def test_every_route_is_described(route: Route) -> None:
    assert doc(route).summary


def test_the_conditions_of_a_search_are_all_read() -> None:
    source = inspect.getsource(search_params)
    names = re.findall(r"^(_[A-Z_]+): Final = ", source, re.MULTILINE)
    assert [vars(search_params)[name] for name in names] == list(search_params.CONDITIONS)
    assert re.findall(r"=(_[A-Z_]+)\.of\(call\)", source) == names


@pytest.mark.parametrize("route", ROUTES, ids=NAMES)
def test_the_parameters_described_are_those_read(route: Route) -> None:
    read = {
        value(route, call.func.value).name  # type: ignore[attr-defined]
        for call in calls(route)
        if method(call)[1] == "of" and method(call)[0].lstrip("_").isupper()
    }
    if ("search_params", "asked") in map(method, calls(route)):
        read |= {parameter.name for parameter in search_params.CONDITIONS}
    assert {parameter.name for parameter in doc(route).query} == read
    direct = [call for call in calls(route) if method(call)[0] == "requests" and method(call)[1] != "body"]
    undeclared = [
        ast.unparse(call) for call in direct if method(call)[1] in ("text", "number", "boolean", "moment", "cursor")
    ]
    assert undeclared == [], "declare the parameter once with a class of server.web.query"


@pytest.mark.parametrize("route", ROUTES, ids=NAMES)
def test_the_body_described_is_the_one_decoded(route: Route) -> None:
    decoded = [call for call in calls(route) if method(call) == ("requests", "body")]
    kinds = {value(route, call.args[1]) for call in decoded}
    empty = any(keyword.arg == "empty" for call in decoded for keyword in call.keywords)
    found = doc(route)
    assert kinds == ({found.body} if found.body else set())
    assert empty == found.body_optional
    assert (found.body is None) == (found.example is None)
    if found.body is not None:
        msgspec.convert(found.example, found.body)


def test_operations_have_names_of_their_own() -> None:
    document = openapi.document(ROUTES)
    names = [one["operationId"] for methods in document["paths"].values() for one in methods.values()]
    assert len(names) == len(set(names)) == len(ROUTES)


def test_the_document_is_openapi_3_1_and_every_reference_leads_somewhere() -> None:
    document = msgspec.json.decode(msgspec.json.encode(openapi.document(ROUTES)))
    schemathesis.openapi.from_dict(document).validate()
    components = document["components"]
    references = re.findall(r'"#/components/(\w+)/([^"]+)"', msgspec.json.encode(document).decode())
    assert references
    for kind, name in references:
        assert name in components[kind], name


@pytest.mark.parametrize("route", ROUTES, ids=NAMES)
def test_every_refusal_described_has_the_status_it_is_described_under(route: Route) -> None:
    operation = openapi.document([route])["paths"][route.path][route.method.lower()]
    for status, answer in operation["responses"].items():
        for word in re.findall(r"`(\w+)`:", answer["description"]):
            assert FAILURES[word].status == int(status)  # type: ignore[index]
    limited = route.limit and "429" in operation["responses"]
    assert limited == route.limit


def test_a_route_without_a_description_is_an_error() -> None:
    async def handler(_: Any) -> Any: ...

    with pytest.raises(LookupError, match="/nowhere"):
        openapi.document([Route("GET", "/nowhere", handler, "none", limit=True)])


@pytest.mark.parametrize("path", sorted(STATIC.iterdir()), ids=lambda path: path.name)
def test_pages_need_nothing_from_elsewhere_and_nothing_inline(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"(?:src|href|url\(|import|from)\s*[=(]?\s*[\"']?(?:https?:)?//", text) == []
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\son\w+=\"|\sstyle=\"|javascript:", text) == []
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text) == []


def test_the_script_looks_for_elements_that_the_page_has() -> None:
    page, script = (STATIC / "docs.html").read_text(), (STATIC / "docs.js").read_text()
    wanted = set(re.findall(r'byId\("([\w-]+)"\)', script))
    assert wanted <= set(re.findall(r'\bid="([\w-]+)"', page))
