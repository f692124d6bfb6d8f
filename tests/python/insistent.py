"""Publishes jobs as docs/how-to/publish-jobs.md says: again and again, until a queue has each.

    insistent.py URL EXCHANGE < MESSAGES

Messages are those of producer.py. Prints how many there were, and how often a full queue refused one.
"""

import json
import random
import sys

import pika
import pika.exceptions


def main():
    url, exchange = sys.argv[1:]
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    published, refused = 0, 0
    for line in sys.stdin:
        message = json.loads(line)
        wait = 0.1
        while True:
            try:
                channel.basic_publish(
                    exchange=exchange,
                    routing_key=message["pool"],
                    body=message["body"].encode(),
                    properties=pika.BasicProperties(
                        content_type="application/json",
                        delivery_mode=2,
                        type="longshore.job.v1",
                    ),
                    mandatory=True,
                )
                break
            except pika.exceptions.NackError:
                refused += 1
                connection.sleep(random.uniform(wait / 2, wait))
                wait = min(2 * wait, 1)
        published += 1
    connection.close()
    print(published, refused)


main()
