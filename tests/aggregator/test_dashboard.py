import contextlib
import json
import shutil
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from selenium import webdriver
from selenium.webdriver.chrome.service import Service as Driver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from aggregator.broker import Broker
from aggregator.merging import Rule
from aggregator.service import Service
from aggregator.settings import Settings
from device_sims.brokers import start_broker
from edge_agent.config import parse_broker_url
from tests.aggregator.workshop import make_bundle, make_update
from wire import topics
from wire.bundle import Bundle
from wire.messages import Metric, Refusal, Status, StatusState, Update

DEADLINE_S = 30.0
TOKEN = "sesame"
NAME = "films <img src=x onerror=document.title='broken'>"
DEVICES = ("hall-hub", "kitchen-pi", "phone-7")
USERS = {"aggregator": "merge-it", **{device: f"secret-{device}" for device in DEVICES}}
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
in_browser = pytest.mark.skipif(
    chromium is None or chromedriver is None,
    reason="chromium and chromedriver are not installed (Debian: chromium, chromium-driver)",
)


class Page:
    """What a person sees of the dashboard, and what they click."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, service: Service, task: str = "") -> None:
        # A change of the fragment alone would not load the page.
        self.driver.get("about:blank")
        self.driver.get(f"{service.url}/dashboard#{task}")

    def text(self, element: str = "") -> str:
        """The visible text of an element by its id, or of the page."""
        target = f"document.getElementById({element!r})" if element else "document.body"
        return str(self.driver.execute_script(f"return {target}.innerText"))

    def count(self, selector: str) -> int:
        return len(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def until(self, condition: Callable[[], object]) -> None:
        WebDriverWait(self.driver, DEADLINE_S, poll_frequency=0.1).until(lambda _: condition())

    def sees(self, text: str, element: str = "") -> None:
        try:
            self.until(lambda: text in self.text(element))
        except Exception:
            pytest.fail(f"{text!r} is not on the page:\n{self.text(element)}")

    def click(self, element: str) -> None:
        self.driver.find_element(By.ID, element).click()

    def type(self, element: str, text: str) -> None:
        self.until(self.driver.find_element(By.ID, element).is_displayed)
        self.driver.find_element(By.ID, element).send_keys(text)

    def problems(self) -> list[str]:
        """What the browser complained about since the last call."""
        return [str(entry["message"]) for entry in self._log()]

    def _log(self) -> list[dict[str, Any]]:
        return list(self.driver.get_log("browser"))  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(chromium)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.add_argument("--window-size=1400,1000")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # With its path given, selenium looks for no driver to download.
    with webdriver.Chrome(options=options, service=Driver(str(chromedriver))) as driver:
        yield driver


@pytest.fixture
def page(driver: webdriver.Chrome) -> Page:
    page = Page(driver)
    page.problems()
    return page


@pytest.fixture(scope="module")
def broker_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_broker("auto", tmp_path_factory.mktemp("broker"), USERS) as broker:
        yield broker.url


@pytest.fixture
def settings(tmp_path: Path, broker_url: str) -> Settings:
    data = tmp_path / "data"
    return Settings(
        data=data,
        database=f"sqlite:///{data / 'ledger.db'}",
        broker=Broker.from_url(
            broker_url, client_id="", username="aggregator", password=USERS["aggregator"]
        ),
        port=0,
        rule=Rule(buffer_size=3, max_wait_s=3600.0),
    )


@pytest.fixture
def films(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "films", name=NAME, items=50_000)


def say(broker_url: str, device: str, updates: Sequence[Update]) -> None:
    """Be a device: come online, publish, and leave when the broker has everything."""
    host, port, _ = parse_broker_url(broker_url)
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=device)
    client.username_pw_set(device, USERS[device])
    client.connect(host, port)
    client.loop_start()
    online = Status(state=StatusState.ONLINE, agent="0.1.0", runtime="onnx").encode()
    sent = [client.publish(topics.status(device), online, qos=1, retain=True)]
    sent += [client.publish(topics.updates(device), one.encode(), qos=1) for one in updates]
    for message in sent:
        message.wait_for_publish(DEADLINE_S)
    client.disconnect()
    client.loop_stop()


def learn(broker_url: str, bundle: Bundle, *, rounds: range = range(1, 4)) -> None:
    """Let every device send one update a round, and one that is refused."""
    for number, device in enumerate(DEVICES):
        metrics = {Metric.HR_AT_10: 0.25 * (number + 1), Metric.NDCG_AT_10: 0.125}
        updates = [
            make_update(bundle, sequence, seed=100 * number + sequence, metrics=metrics)
            for sequence in rounds
        ]
        too_early = make_update(bundle, 1000 + rounds.start, base=99)
        say(broker_url, device, [*updates, too_early])


def ask(service: Service, path: str) -> Any:
    with urllib.request.urlopen(service.url + path, timeout=DEADLINE_S) as response:
        return json.load(response)


@in_browser
def test_a_person_sees_how_the_fleet_learns(
    page: Page, settings: Settings, films: Bundle, broker_url: str
) -> None:
    with Service(settings, (films,)) as service:
        page.open(service)
        page.sees(NAME, "name")
        page.sees(films.task, "id")
        page.sees("Live", "link")
        page.sees("Running", "state")
        page.sees("No quality yet", "quality")
        page.sees("No update in the last two minutes", "throughput")
        page.sees("Nothing merged yet", "staleness")
        page.sees("None so far", "refusals")
        page.sees("not measured yet")

        learn(broker_url, films)
        page.until(lambda: page.text("version") == "3")
        page.sees("9 accepted, 0 duplicate, 3 refused")
        page.sees("3 known", "devices-note")
        page.until(lambda: page.text("hr") == "0.500")
        page.sees("from-the-future", "refusals")
        page.sees(Refusal.FROM_THE_FUTURE.advice, "refusals")
        page.sees("v3", "versions")
        page.sees("A version is 3 updates", "versions-note")
        page.sees("Every version can be made again from the start", "reach")
        page.sees("kitchen-pi", "devices")
        page.sees("online", "devices")
        page.sees("task created", "events")

        summary = ask(service, f"/v1/tasks/{films.task}/summary")
        assert summary["bytes"]["saved_ratio"] > 0.99
        page.sees("99.9 %", "saved")
        page.sees("MB", "saved-note")

        page.until(lambda: page.count("#quality .scatterlayer .trace") == 2)
        page.until(lambda: page.count("#staleness .barlayer .point") == 3)
        page.until(lambda: page.count("#throughput .scatterlayer .trace") == 1)
        label = page.driver.find_element(By.ID, "staleness").get_attribute("aria-label")
        assert label == "Bar chart. 9 merged updates by staleness, 0 to 2."

        learn(broker_url, films, rounds=range(4, 5))
        page.until(lambda: page.text("version") == "4")
        assert page.driver.title.startswith(NAME)
        assert page.problems() == []


@in_browser
def test_everything_comes_from_the_service_itself(
    page: Page, settings: Settings, films: Bundle, broker_url: str
) -> None:
    with Service(settings, (films,)) as service:
        learn(broker_url, films)
        page.open(service)
        page.until(lambda: page.count("#quality .scatterlayer .trace") == 2)
        script = "return performance.getEntriesByType('resource').map(entry => entry.name)"
        loaded = page.driver.execute_script(script)
        assert any("plotly" in address for address in loaded)
        assert all(address.startswith((service.url, "data:")) for address in loaded)


@in_browser
def test_pausing_asks_for_the_token_and_steers_the_task(
    page: Page, settings: Settings, films: Bundle
) -> None:
    with Service(replace(settings, api_token=TOKEN), (films,)) as service:
        page.open(service)
        page.sees("Running", "state")
        page.click("toggle")
        page.type("token", "wrong" + Keys.ENTER)
        page.sees("The token was refused", "login")
        page.type("token", TOKEN + Keys.ENTER)
        page.sees("Paused", "state")
        assert ask(service, f"/v1/tasks/{films.task}")["paused"] is True
        page.click("toggle")
        page.sees("Running", "state")
        assert ask(service, f"/v1/tasks/{films.task}")["paused"] is False
        page.sees("steered", "events")
        page.driver.execute_script("sessionStorage.clear()")


@in_browser
def test_without_the_token_nothing_changes_and_the_page_says_so(
    page: Page, settings: Settings, films: Bundle
) -> None:
    with Service(replace(settings, api_token=TOKEN), (films,)) as service:
        page.open(service)
        page.sees("Running", "state")
        page.click("toggle")
        page.until(page.driver.find_element(By.ID, "cancel").is_displayed)
        page.click("cancel")
        page.sees("It needs the API token", "problem")
        assert ask(service, f"/v1/tasks/{films.task}")["paused"] is False


@in_browser
def test_a_lost_service_is_shown_and_a_returned_one_goes_on(
    page: Page, settings: Settings, films: Bundle, broker_url: str
) -> None:
    with Service(settings, (films,)) as service:
        page.open(service)
        learn(broker_url, films)
        page.until(lambda: page.text("version") == "3")
        port = int(service.url.rpartition(":")[2])
    page.sees("Connection lost", "link")
    page.sees("Trying again in", "lost")
    assert page.text("version") == "3"
    with Service(replace(settings, port=port), (films,)):
        page.click("retry")
        page.sees("Live", "link")
        page.until(lambda: not page.driver.find_element(By.ID, "lost").is_displayed())
        learn(broker_url, films, rounds=range(4, 5))
        page.until(lambda: page.text("version") == "4")


@in_browser
def test_an_empty_service_says_what_to_do_and_shows_the_first_task_when_it_comes(
    page: Page, settings: Settings, films: Bundle
) -> None:
    with Service(settings) as service:
        page.open(service)
        page.sees("No task yet")
        page.sees(f"rivulet-export publish bundle --to {service.url}", "publish-command")
        publish(service, films)
        page.sees(NAME, "name")


@in_browser
def test_one_of_several_tasks_is_chosen(
    page: Page, settings: Settings, films: Bundle, broker_url: str, tmp_path: Path
) -> None:
    songs = make_bundle(tmp_path / "songs", name="songs")
    with Service(settings, (films, songs)) as service:
        learn(broker_url, films)
        page.open(service, films.task)
        page.sees(NAME, "name")
        page.until(lambda: page.count("#quality .plot .trace") == 2)
        options = page.driver.find_elements(By.CSS_SELECTOR, "#tasks option")
        assert len(options) == 2
        page.type("tasks", "songs")
        page.until(lambda: page.text("name") == "songs")
        page.sees("No quality yet", "quality")
        assert page.count("#quality .plot") == 0
        assert page.driver.current_url.endswith(songs.task)
        page.driver.refresh()
        page.until(lambda: page.text("name") == "songs")
        page.type("tasks", "films")
        page.until(lambda: page.count("#quality .plot .trace") == 2)
        assert page.count("#quality > *") == 1


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_both_colour_schemes(
    page: Page, settings: Settings, films: Bundle, broker_url: str, scheme: str
) -> None:
    with Service(settings, (films,)) as service, phone(page.driver, scheme):
        learn(broker_url, films)
        page.open(service)
        page.until(lambda: page.count("#quality .scatterlayer .trace") == 2)
        widths = "return [document.documentElement.scrollWidth, window.innerWidth]"
        content, window = page.driver.execute_script(widths)
        assert content <= window == 390
        ground = "return getComputedStyle(document.body).backgroundColor"
        red = int(page.driver.execute_script(ground).removeprefix("rgb(").partition(",")[0])
        assert (red < 128) == (scheme == "dark")


@contextmanager
def phone(driver: webdriver.Chrome, scheme: str) -> Iterator[None]:
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    try:
        yield
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def publish(service: Service, bundle: Bundle) -> None:
    for entry in bundle.manifest.files:
        send(service, "PUT", f"/v1/blobs/{entry.sha256}", (bundle.root / entry.path).read_bytes())
    send(service, "POST", "/v1/tasks", bundle.raw_manifest)


def send(service: Service, method: str, path: str, body: bytes) -> None:
    request = urllib.request.Request(service.url + path, data=body, method=method)
    with contextlib.closing(urllib.request.urlopen(request, timeout=DEADLINE_S)) as response:
        assert response.status == 201


@pytest.fixture
def client(settings: Settings) -> Iterator[httpx.Client]:
    with Service(settings) as service, httpx.Client(base_url=service.url) as client:
        yield client


def test_the_page_allows_scripts_of_the_service_only(client: httpx.Client) -> None:
    answer = client.get("/dashboard")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "://" not in answer.text.replace("http://www.w3.org", "")


def test_the_files_are_checked_for_changes_and_not_sent_again(client: httpx.Client) -> None:
    first = client.get("/dashboard/app.js")
    assert first.headers["content-type"].startswith("text/javascript")
    tag = first.headers["etag"]
    again = client.get("/dashboard/app.js", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")


def test_plotly_comes_packed_at_an_address_that_never_changes_its_content(
    client: httpx.Client,
) -> None:
    address = client.get("/dashboard").text.partition('data-plotly="')[2].partition('"')[0]
    packed = client.get(address, headers={"Accept-Encoding": "gzip"})
    plain = client.get(address, headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < 2_000_000
    assert "content-encoding" not in plain.headers
    assert packed.content == plain.content
    assert b"plotly.js" in plain.content[:200]
    assert "immutable" in packed.headers["cache-control"]
    assert client.get("/dashboard/plotly-0.0.0.min.js").status_code == 404


@pytest.mark.parametrize("name", ["index.html", "routes.py", "..%2froutes.py", "nothing.js"])
def test_no_other_file_is_served(client: httpx.Client, name: str) -> None:
    assert client.get(f"/dashboard/{name}").status_code == 404


def test_every_reason_of_refusal_comes_with_its_advice(client: httpx.Client) -> None:
    advice = client.get("/dashboard/refusals.json").json()
    assert advice == {refusal.slug: refusal.advice for refusal in Refusal}
