"""The control channel: who comes, who is refused, and that all stop at one place."""

import concurrent.futures
import contextlib
import socket
import threading
import time

from s2l_jax.errors import InputError
from s2l_jax.parallel import control
from s2l_jax.parallel.clusters import Group
from tests.support.processes import free_port


def come(port, *members, wait=20.0):
    """What becomes of processes (index, count), all threads of this one: channels or exceptions."""

    def one(index, count):
        try:
            return control.connect(Group("test", f"127.0.0.1:{port}", count, index), wait)
        except (InputError, TimeoutError) as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(len(members)) as threads:
        return list(threads.map(one, *zip(*members, strict=True)))


def test_who_waits_too_long_is_told_how_many_came_and_who_did_not():
    errors = come(free_port(), (0, 4), (1, 4), (3, 4), wait=1.0)
    assert [type(error) for error in errors] == [control.LateError] * 3
    assert {str(error) for error in errors} == {"3 of 4 processes came within 1 s; missing: 2"}


def test_without_process_0_the_error_says_where_it_was_looked_for():
    port = free_port()
    (error,) = come(port, (1, 2), wait=0.5)
    assert isinstance(error, TimeoutError)
    assert f"process 1 of 2 waited 0.5 s for process 0 at 127.0.0.1:{port}" in str(error)


def test_a_number_that_comes_twice_and_a_count_of_its_own_are_refused():
    port = free_port()
    outcomes = come(port, (0, 3), (1, 3), (1, 3), wait=1.5)
    refused = [error for error in outcomes if isinstance(error, InputError)]
    assert len(refused) == 1
    assert "another process says that it is process 1" in str(refused[0])
    outcomes = come(free_port(), (0, 2), (1, 3), wait=1.5)
    assert "it is process 1 of 3, the others are 2" in str(outcomes[1])


def test_an_address_that_another_run_has_is_named(monkeypatch):
    monkeypatch.setattr(control, "_PORT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (error,) = come(port, (0, 2))
    assert isinstance(error, InputError)
    assert f"127.0.0.1:{port}" in str(error)
    assert "another run may have it" in str(error)


def test_a_stranger_on_the_port_is_sent_away():
    port = free_port()
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        first = thread.submit(come, port, (0, 2))
        stranger = None
        while stranger is None:
            with contextlib.suppress(OSError):
                stranger = socket.create_connection(("127.0.0.1", port))
            time.sleep(0.01)
        with stranger:
            stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert stranger.recv(1) == b""
        channels = come(port, (1, 2)) + first.result()
    assert all(isinstance(channel, control.Channel) for channel in channels)


def test_all_stop_at_one_place_that_none_has_passed():
    """However far apart they are when one of them is told to stop."""
    channels = come(free_port(), *((index, 3) for index in range(3)))
    ahead = threading.Event()

    def steps(index):
        for step in range(1, 10_000):
            if signal := channels[index].poll():
                return step, signal
            if (index, step) == (0, 400):
                ahead.set()
            if index == 1 and step == 10:
                ahead.wait()
                channels[1].send({"kind": "stop", "signal": 15})
            time.sleep(0.0001 if index == 0 else 0.0003)
        return None

    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        ends = list(threads.map(steps, range(3)))
    assert len(set(ends)) == 1
    assert ends[0][0] > 400
    assert ends[0][1] == 15
