#!/usr/bin/env bash
# From nothing to a service behind a load balancer whose version is replaced under load: what `make demo` shows. Needs root,
# neargate and the AWS CLI on PATH.
# It works in a data directory of its own and takes everything away again.
set -euo pipefail
cd "$(dirname "$0")"
if [ "$(id -u)" != 0 ]; then
    exec sudo --preserve-env=PATH "$0" "$@"
fi

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
work=$(mktemp -d)
export NEARGATE_DATA_DIR=$work/data
unset AWS_PROFILE AWS_SESSION_TOKEN AWS_CA_BUNDLE
export AWS_PAGER=""
export REGISTRY_AUTH_FILE=$work/auth.json
listen=127.0.0.1:${NEARGATE_DEMO_PORT:-4566}
port=${NEARGATE_DEMO_PAGE_PORT:-8088}

finish() {
    say "taking everything away"
    neargate down || true
    buildah rmi -f neargate-hello >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap finish EXIT

say "starting Neargate"
neargate up --listen "$listen"
eval "$(neargate env)"
account=$(aws sts get-caller-identity --query Account --output text)
echo "account $account, region $AWS_DEFAULT_REGION"

say "building examples/hello and pushing it to ECR"
cp Dockerfile passwd start "$work/"
cp "$(command -v busybox)" "$work/busybox"
buildah bud --isolation chroot -q -t neargate-hello "$work" >/dev/null
repository=$(aws ecr create-repository --repository-name hello --query repository.repositoryUri --output text)
aws ecr get-login-password | skopeo login --tls-verify=false --username AWS --password-stdin "${repository%%/*}"
skopeo copy -q --dest-tls-verify=false containers-storage:localhost/neargate-hello:latest "docker://$repository:latest"
echo "pushed $repository:latest"

say "registering the task definition"
trust='{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole"}]}'
aws iam create-role --role-name hello-execution --assume-role-policy-document "$trust" --query Role.Arn --output text
aws iam attach-role-policy --role-name hello-execution \
    --policy-arn arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy
aws logs create-log-group --log-group-name /hello
sed -e "s#ACCOUNT#$account#" -e "s#IMAGE#$repository:latest#" task-definition.json > "$work/task-definition.json"
aws ecs register-task-definition --cli-input-json "file://$work/task-definition.json" \
    --query taskDefinition.taskDefinitionArn --output text

say "running it on Fargate"
aws ecs create-cluster --cluster-name demo --query cluster.clusterArn --output text
subnet=$(aws ec2 describe-subnets --query 'Subnets[0].SubnetId' --output text)
vpc=$(aws ec2 describe-subnets --query 'Subnets[0].VpcId' --output text)
group=$(aws ec2 create-security-group --group-name hello --description "the page" --vpc-id "$vpc" --query GroupId --output text)
aws ec2 authorize-security-group-ingress --group-id "$group" --protocol tcp --port 8080 --cidr 0.0.0.0/0 >/dev/null
task=$(aws ecs run-task --cluster demo --launch-type FARGATE --task-definition hello \
    --network-configuration "awsvpcConfiguration={subnets=[$subnet],securityGroups=[$group],assignPublicIp=ENABLED}" \
    --query 'tasks[0].taskArn' --output text)
if ! aws ecs wait tasks-running --cluster demo --tasks "$task"; then
    aws ecs describe-tasks --cluster demo --tasks "$task" --query "tasks[0].[stoppedReason,containers[].reason]" --output text >&2
    exit 1
fi
aws ecs describe-tasks --cluster demo --tasks "$task" --output table \
    --query 'tasks[0].{status:lastStatus,created:createdAt,started:startedAt,image:containers[0].imageDigest}'
eni=$(aws ecs describe-tasks --cluster demo --tasks "$task" --output text \
    --query "tasks[0].attachments[0].details[?name=='networkInterfaceId'].value|[0]")
address=$(aws ec2 describe-network-interfaces --network-interface-ids "$eni" --query 'NetworkInterfaces[0].Association.PublicIp' --output text)

say "its page, http://$address:8080/"
curl -s --fail --retry 10 --retry-connrefused --retry-delay 1 "http://$address:8080/"

say "its log lines"
aws logs filter-log-events --log-group-name /hello --query 'events[].message' --output text | tr '\t' '\n'

say "a service of two tasks behind an Application Load Balancer"
subnets=$(aws ec2 describe-subnets --query 'Subnets[0:2].SubnetId' --output text | tr '\t' ',')
front=$(aws ec2 create-security-group --group-name front --description "the load balancer" --vpc-id "$vpc" --query GroupId --output text)
aws ec2 authorize-security-group-ingress --group-id "$front" --protocol tcp --port "$port" --cidr 0.0.0.0/0 >/dev/null
balancer=$(aws elbv2 create-load-balancer --name hello --subnets ${subnets/,/ } --security-groups "$front" \
    --query 'LoadBalancers[0].LoadBalancerArn' --output text)
targets=$(aws elbv2 create-target-group --name hello --protocol HTTP --port 8080 --vpc-id "$vpc" --target-type ip \
    --query 'TargetGroups[0].TargetGroupArn' --output text)
aws elbv2 create-listener --load-balancer-arn "$balancer" --protocol HTTP --port "$port" \
    --default-actions "Type=forward,TargetGroupArn=$targets" --query 'Listeners[0].ListenerArn' --output text
aws ecs create-service --cluster demo --service-name hello --task-definition hello --desired-count 2 --launch-type FARGATE \
    --network-configuration "awsvpcConfiguration={subnets=[$subnets],securityGroups=[$group]}" \
    --load-balancers "targetGroupArn=$targets,containerName=web,containerPort=8080" --query service.serviceArn --output text
aws ecs wait services-stable --cluster demo --services hello
name=$(aws elbv2 describe-load-balancers --names hello --query 'LoadBalancers[0].DNSName' --output text)
url=http://$name:$port/
echo "$url"
curl -s --fail "$url"

say "a new version replaces the old one, while four clients ask without a pause"
sed -e "s#ACCOUNT#$account#" -e "s#IMAGE#$repository:latest#" \
    -e 's#"stopTimeout"#"environment": [{ "name": "GREETING", "value": "Hello from the second version" }], "stopTimeout"#' \
    task-definition.json > "$work/second.json"
aws ecs register-task-definition --cli-input-json "file://$work/second.json" \
    --query taskDefinition.taskDefinitionArn --output text
for client in 1 2 3 4; do
    # Each answer is a line: its status, and the page.
    while [ ! -e "$work/enough" ]; do
        curl -s -o - -w '%{http_code}\n' --max-time 10 "$url" | tr '\n' ' ' || true
        echo
    done > "$work/answers.$client" &
done
aws ecs update-service --cluster demo --service hello --task-definition hello --query service.taskDefinition --output text
aws ecs wait services-stable --cluster demo --services hello
touch "$work/enough"
wait
curl -s --fail "$url"
total=$(cat "$work"/answers.* | wc -l)
bad=$(grep -vc ' 200 $' < <(cat "$work"/answers.*) || true)
echo "$total requests, $bad failed"
aws ecs describe-services --cluster demo --services hello --query 'reverse(services[0].events[0:12].message)' --output text | tr '\t' '\n'

say "neargate status"
neargate status
[ "$bad" = 0 ]
