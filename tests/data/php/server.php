<?php
// Answers with $_SERVER, and with what the body is by length and digest.
$body = file_get_contents('php://input');
header('Code: 200');
header('Content-Type: application/json');
echo json_encode(array('server' => $_SERVER, 'length' => strlen($body), 'sha256' => hash('sha256', $body),
    'post' => array_keys($_POST), 'headers' => getallheaders()), JSON_PARTIAL_OUTPUT_ON_ERROR);
