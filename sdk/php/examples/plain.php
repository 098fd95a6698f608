<?php
// No SDK at all: a topic with `contract = status` and `body = raw`. Any 2xx is done; what throws is tried again.
$order = json_decode(file_get_contents('php://input'), true);
if (!is_array($order)) {
    http_response_code(422);                    // can never work: set aside at once
    exit('the content is no JSON');
}
echo "order {$order['order']}, attempt {$_SERVER['PEPPERBUS_ATTEMPT']}";
