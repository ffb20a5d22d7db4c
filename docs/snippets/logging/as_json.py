import logging

from amphora.observe.logs import JsonFormatter

handler = logging.StreamHandler()
handler.setFormatter(JsonFormatter())
logging.basicConfig(level="INFO", handlers=[handler])
logging.info("paid", extra={"fields": {"order": 17}})  # fields of your own
