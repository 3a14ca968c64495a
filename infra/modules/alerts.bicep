metadata description = 'Alerts over the telemetry of the runs'

@description('Azure region.')
param location string

@description('Tags.')
param tags object

@description('Resource id of Application Insights.')
param applicationInsightsId string

@description('E-mail addresses that are notified.')
param emails string[]

@description('Resource ids of existing action groups that are notified.')
param actionGroupIds string[]

@description('Share of a run\'s nodes, in percent, that may end in error for any control.')
param undeterminedPercent int

@description('Whether the alert on missed runs is on.')
param missedRun bool

// Each query gives one row for each thing to tell. Severity: 1 error, 2 warning. Windows hold a whole run.
var rules = [
  {
    name: 'run-failed'
    title: 'Kubelet guard: a run failed'
    description: 'A run ended in failure. Its nodes may not have been looked at.'
    severity: 1
    query: loadTextContent('../queries/run-failed.kql')
    operator: 'GreaterThan'
    threshold: 0
    window: 'PT1H'
    frequency: 'PT15M'
  }
  {
    name: 'run-missed'
    title: 'Kubelet guard: no run completed in two days'
    description: 'No run completed in two days: the schedule, the app or its access is broken. It is also raised until the first run after a deployment.'
    severity: 1
    query: loadTextContent('../queries/run-completed.kql')
    operator: 'LessThan'
    threshold: 1
    window: 'P2D'
    frequency: 'PT1H'
  }
  {
    name: 'undetermined'
    title: 'Kubelet guard: too many nodes undetermined'
    description: 'More than ${undeterminedPercent} percent of the nodes of a run ended in error for a control: they are neither known to comply nor not to.'
    severity: 2
    query: replace(loadTextContent('../queries/undetermined.kql'), 'UNDETERMINED_PERCENT', string(undeterminedPercent))
    operator: 'GreaterThan'
    threshold: 0
    window: 'PT6H'
    frequency: 'PT15M'
  }
  {
    name: 'regressed'
    title: 'Kubelet guard: a control regressed'
    description: 'A node that complied before, or was fixed, does not comply any more.'
    severity: 2
    query: loadTextContent('../queries/regressed.kql')
    operator: 'GreaterThan'
    threshold: 0
    window: 'PT1H'
    frequency: 'PT15M'
  }
  {
    name: 'waiting'
    title: 'Kubelet guard: a fix waits for its approval, or the scheduled run is overdue'
    description: 'Nothing goes on until somebody approves or refuses the plan of the fix, or looks why the scheduled run did not happen.'
    severity: 2
    query: loadTextContent('../queries/waiting.kql')
    operator: 'GreaterThan'
    threshold: 0
    window: 'PT1H'
    frequency: 'PT15M'
  }
]

resource emailGroup 'Microsoft.Insights/actionGroups@2023-01-01' = if (!empty(emails)) {
  name: 'ag-kubelet-guard'
  location: 'global'
  tags: tags
  properties: {
    enabled: true
    groupShortName: 'kubeletguard'
    emailReceivers: [
      for email in emails: {
        name: email
        emailAddress: email
        useCommonAlertSchema: true
      }
    ]
  }
}

resource alerts 'Microsoft.Insights/scheduledQueryRules@2026-03-01' = [
  for rule in rules: {
    name: 'kubelet-guard-${rule.name}'
    location: location
    tags: tags
    kind: 'LogAlert'
    properties: {
      displayName: rule.title
      description: rule.description
      enabled: rule.name != 'run-missed' || missedRun
      severity: rule.severity
      scopes: [
        applicationInsightsId
      ]
      evaluationFrequency: rule.frequency
      windowSize: rule.window
      autoMitigate: true
      // A rule is made before its tables are known: validating the query at once can fail a first deployment.
      skipQueryValidation: true
      criteria: {
        allOf: [
          {
            query: rule.query
            timeAggregation: 'Count'
            operator: rule.operator
            threshold: rule.threshold
            failingPeriods: {
              numberOfEvaluationPeriods: 1
              minFailingPeriodsToAlert: 1
            }
          }
        ]
      }
      actions: {
        actionGroups: empty(emails) ? actionGroupIds : concat(actionGroupIds, [emailGroup!.id])
      }
    }
  }
]
