"""Publishes jobs as a producer outside of Longshore does, and as docs/how-to/publish-jobs.md says: with
pika, with nothing of Longshore's, and again and again until a queue has each.

    producer.py URL EXCHANGE < MESSAGES

Standard input has one message a line: {"pool": …, "body": …, "properties": {…}}. Each is published
persistent and mandatory, and is confirmed before the next. Prints how many there were, and how often a
full queue refused one; fails if the broker returns one.
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
        properties = {"type": "longshore.job.v1", **message["properties"]}
        wait = 0.1
        while True:
            try:
                channel.basic_publish(
                    exchange=exchange,
                    routing_key=message["pool"],
                    body=message["body"].encode(),
                    properties=pika.BasicProperties(
                        content_type="application/json",
                        delivery_mode=pika.DeliveryMode.Persistent,
                        **properties,
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
