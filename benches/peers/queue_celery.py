"""Celery: jobs that do nothing but one INCR in Redis, over a quorum queue of RabbitMQ.

    queue_celery.py enqueue AMQP_URL REDIS_URL QUEUE JOBS
    queue_celery.py drain   AMQP_URL REDIS_URL QUEUE JOBS [SECONDS]

`enqueue` publishes JOBS messages with random keys, waiting for the broker's confirm of each, as Celery
does. `drain` starts `celery worker` with 2 processes, and ends after SECONDS at the latest (600). QUEUE
begins with `longshore-peer-`; `drain` removes it and its keys. Each prints one JSON line; jobs/s of a drain
are from the first job counted to the last. It is an error if the queue is no quorum queue, if jobs are
done twice, or if some are left.

Its guarantee here is at least once: messages are durable and confirmed, and are acknowledged after the
task (`acks_late`), also when its process is killed (`reject_on_worker_lost`). By default it would be at
most once: acknowledged before the task, and published without confirms. It keeps no record of a job
(there is no result backend), and a task that raises is acknowledged and gone.
"""

import queues

if __name__ == "__main__":
    queues.settle()

from celery import Celery  # noqa: E402
from celery.worker.consumer import Consumer  # noqa: E402

QUEUE = queues.setting("QUEUE")
EXCHANGES = [QUEUE, f"{QUEUE}-control", f"{QUEUE}-events"]

app = Celery("peer", broker=queues.setting("AMQP"))
app.conf.update(
    task_default_queue=QUEUE,
    task_default_queue_type="quorum",
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    task_publish_retry=False,
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=False,
    # What a worker makes besides its queue must have names of our own on a broker that others use.
    worker_enable_remote_control=False,
    control_exchange=EXCHANGES[1],
    event_exchange=EXCHANGES[2],
)
# The same holds for the 28 queues by which Celery delays messages of quorum queues, and their names
# cannot be chosen. No job here is delayed.
DELAYED = "celery.worker.consumer.delayed_delivery:DelayedDelivery"
Consumer.Blueprint.default_steps.remove(DELAYED)
counter = queues.Counter()


@app.task(name="job")
def job(key):
    counter.count()


# The prefetch is Celery's default: 4 messages a process.
WORKER = (
    "celery --app queue_celery --quiet worker --loglevel WARNING --pool prefork --concurrency 2 "
    "--without-gossip --without-mingle"
).split()

if __name__ == "__main__":
    arguments = {"x-queue-type": "quorum"}
    queues.main(job.delay, arguments, [*WORKER, "--queues", QUEUE], [QUEUE], EXCHANGES)
