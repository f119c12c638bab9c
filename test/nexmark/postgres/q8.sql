SELECT DISTINCT p.id, p.name, date_bin('10 seconds', p."dateTime", 'epoch') AS window_start
FROM person AS p
JOIN auction AS a ON p.id = a.seller AND date_bin('10 seconds', p."dateTime", 'epoch') = date_bin('10 seconds', a."dateTime", 'epoch')
