SELECT DISTINCT export FROM definitions ORDER BY export
