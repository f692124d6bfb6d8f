"""Publishes jobs as a producer outside of Longshore does: with pika, and with nothing of Longshore's.

    producer.py URL EXCHANGE < MESSAGES

Standard input has one message a line: {"pool": …, "body": …, "properties": {…}}. Each is published
persistent and mandatory, and is confirmed before the next. Prints how many there were; fails if the
broker refuses or returns one.
"""

import json
import sys

import pika


def main():
    url, exchange = sys.argv[1:]
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    published = 0
    for line in sys.stdin:
        message = json.loads(line)
        properties = {"type": "longshore.job.v1", **message["properties"]}
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
        published += 1
    connection.close()
    print(published)


main()
