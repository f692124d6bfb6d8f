"""Dramatiq: jobs that do nothing but one INCR in Redis, over a quorum queue of RabbitMQ.

    queue_dramatiq.py enqueue AMQP_URL REDIS_URL QUEUE JOBS
    queue_dramatiq.py drain   AMQP_URL REDIS_URL QUEUE JOBS [SECONDS]

`enqueue` publishes JOBS messages with random keys, waiting for the broker's confirm of each. `drain` starts
`dramatiq` with 2 processes of 8 threads, and ends after SECONDS at the latest (600). QUEUE begins with
`longshore-peer-`; `drain` removes it, its queues for delayed and dead messages, and its keys. Each prints
one JSON line; jobs/s of a drain are from the first job counted to the last. It is an error if the queue is
no quorum queue, if jobs are done twice, or if some are left.

Its guarantee here is at least once: messages are durable and confirmed, and are acknowledged after the
actor has returned. A job that fails is published anew with a delay, then the old message is acknowledged;
after 20 tries it goes to the dead letters, where it expires within 7 days. It keeps no record of a job.
"""

import queues

if __name__ == "__main__":
    queues.settle()

import dramatiq  # noqa: E402
from dramatiq.brokers.rabbitmq import RabbitmqBroker  # noqa: E402

QUEUE = queues.setting("QUEUE")


class QuorumBroker(RabbitmqBroker):
    """Dramatiq has no setting for the type of its queues, and declares them on every start, so that one
    made by hand with another type would be refused. This is the one place where its arguments are made."""

    def _build_queue_arguments(self, queue_name):
        return {**super()._build_queue_arguments(queue_name), "x-queue-type": "quorum"}


broker = QuorumBroker(url=queues.setting("AMQP"), confirm_delivery=True)
dramatiq.set_broker(broker)
counter = queues.Counter()


@dramatiq.actor(queue_name=QUEUE, actor_name="job")
def job(key):
    counter.count()


# The prefetch is Dramatiq's default: 2 messages a thread.
WORKER = "dramatiq queue_dramatiq --processes 2 --threads 8 --queues".split()

if __name__ == "__main__":
    arguments = broker._build_queue_arguments(QUEUE)
    queues.main(job.send, arguments, [*WORKER, QUEUE], [QUEUE, f"{QUEUE}.DQ", f"{QUEUE}.XQ"])
