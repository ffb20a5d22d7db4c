import mails
import pytest


@pytest.fixture(autouse=True)
def no_mails():
    mails.outbox.clear()


def test_a_mail_is_sent(amphora_broker, amphora_server, amphora_client):
    amphora_server("mails", mails.send, raise_errors=True)
    amphora_client("mails").cast.send("alice@example.com", text="hello")
    amphora_broker.wait_until_served()
    assert mails.outbox == ["alice@example.com: hello"]
