SELECT json_object('fence', fence, 'epoch', epoch, 'worker', worker, 'opened_at', stamp(opened_at),
    'ended_at', stamp(ended_at), 'outcome', outcome, 'class', class, 'message', message)
FROM attempts WHERE run = ?1 ORDER BY fence
