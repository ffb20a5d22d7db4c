outbox: list[str] = []


def send(to: str, *, text: str) -> None:
    if "@" not in to:
        raise ValueError(f"{to} is no address")
    outbox.append(f"{to}: {text}")
