"""The sockets that a measurement asks through: an answer in pieces, a refusal, a gateway that goes away."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from gateway.advice import asking
from gateway.errors import StoreUnavailable, UnsupportedModel


@contextlib.contextmanager
def connected() -> Iterator[tuple[asking.Connection, socket.socket]]:
    """A connection, and what a server would have of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = asking.Connection(listener.getsockname()[1])
        served, _ = listener.accept()
        with contextlib.closing(connection), served:
            yield connection, served


def test_an_answer_in_pieces_is_stamped_when_its_last_one_came():
    with connected() as (connection, served):
        sent_ns = connection.send(asking.request("/x", b"{}"))
        assert served.recv(1000).endswith(b"Content-Length: 2\r\n\r\n{}")
        served.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        assert connection.receive() is None
        between_ns = asking.now_ns()
        served.sendall(b"cd")
        answer = connection.answer()
        assert sent_ns == answer.sent_ns <= between_ns <= answer.arrived_ns <= asking.now_ns()


def test_a_refusal_says_what_the_gateway_said():
    with connected() as (connection, served):
        connection.send(asking.request("/x", b"{}"))
        served.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 9\r\n\r\nno column")
        with pytest.raises(UnsupportedModel, match="no column"):
            connection.answer()


def test_a_gateway_that_goes_away_is_named():
    with connected() as (connection, served):
        connection.send(asking.request("/x", b"{}"))
        served.close()
        with pytest.raises(StoreUnavailable, match="went away"):
            connection.answer()
